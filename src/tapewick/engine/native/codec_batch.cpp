#include "codec_batch.hpp"

#include <algorithm>
#include <cstdlib>
#include <cstring>

namespace tapewick::codec {

namespace {

// `top` at a scale `up` digits wider still fits int64.
bool widens(int64_t top, int up) { return top == 0 || (up <= 18 && top <= INT64_TOP / static_cast<int64_t>(POW10[up])); }

int64_t widened(int64_t value, int up) { return value == 0 ? 0 : value * static_cast<int64_t>(POW10[up]); }

// A symbol's scale and a value at it, or a refusal; nothing changes before both sides fit.
struct Fit {
    int scale;
    int64_t mantissa = 0;
    bool good;

    Fit(const Decimal& value, int current, bool known, bool in_batch, int64_t top) {
        scale = known ? std::max(current, value.scale) : fit_scale(current, value);
        good = at_scale(value, scale, mantissa) && (!in_batch || widens(top, scale - current));
    }
};

}  // namespace

Symbol& Symbols::at(std::string_view name) {
    if (last_ != nullptr && last_->name == name) return *last_;
    auto found = index_.find(name);
    if (found == index_.end()) {
        BookScales scales{price_scale_, size_scale_, false};
        all_.push_back({std::string(name), price_scale_, size_scale_, false, scales, scales});
        found = index_.emplace(all_.back().name, &all_.back()).first;
    }
    return *(last_ = found->second);
}

void Symbols::set_scale(std::string_view name, int price_scale, int size_scale) {
    Symbol& symbol = at(name);
    symbol.price_scale = price_scale;
    symbol.size_scale = size_scale;
    symbol.known = true;
    symbol.depth = symbol.quote = {price_scale, size_scale, true};
}

void Batch::take(std::string_view frame, int64_t recv) {
    last_recv = recv;
    read_frame(frame, trade_, book_, verdict_);
    if (verdict_.outcome == Outcome::trade) return keep(recv);
    take_other(recv);
}

void Batch::take_other(int64_t recv) {
    switch (verdict_.outcome) {
        case Outcome::trade: break;
        case Outcome::depth: keep_book(recv, false); break;
        case Outcome::quote: keep_book(recv, true); break;
        case Outcome::rest: rest.push_back({verdict_.kind, verdict_.label, std::string(verdict_.body), recv}); break;
        case Outcome::reject: reject(verdict_.reject); break;
        case Outcome::other:
            if (verdict_.kind == Kind::unknown) ++unknown["unknown:" + verdict_.label];
            else ++others[static_cast<int>(verdict_.kind)];
    }
}

void Batch::take_lines(std::string_view block) {
    const char* p = block.data();
    const char* end = p + block.size();
    while (p < end) {
        auto stop = static_cast<const char*>(std::memchr(p, '\n', static_cast<size_t>(end - p)));
        if (stop == nullptr) stop = end;
        take_line({p, static_cast<size_t>(stop - p)});
        p = stop + 1;
    }
}

void Batch::take_line(std::string_view line) {
    if (line.empty()) {
        ++others[static_cast<int>(Kind::blank)];
        return;
    }
    size_t digits = 0;
    uint64_t recv = 0;
    for (; digits < line.size() && digits < 20 && is_digit(line[digits]); ++digits)
        recv = recv * 10 + static_cast<uint64_t>(line[digits] - '0');
    if (digits == 0 || digits > 19 || digits == line.size() || line[digits] != ' ') return reject(Reject::malformed_json);
    if (recv > static_cast<uint64_t>(INT64_TOP)) return reject(Reject::bad_time);
    take(line.substr(digits + 1), static_cast<int64_t>(recv));
}

void Batch::enter(Symbol& symbol) {
    if (symbol.batch == number_) return;
    symbol.batch = number_;
    symbol.group[0] = symbol.group[1] = symbol.depth_rows = symbol.quote_rows = -1;
    symbol.top_price = symbol.top_size = 0;
}

void Batch::keep_book(int64_t recv, bool quote) {
    Symbol& symbol = symbols_.at(book_->symbol);
    enter(symbol);
    auto& all = quote ? quotes : depth;
    int& index = quote ? symbol.quote_rows : symbol.depth_rows;
    bool first = index < 0;
    if (first) {
        index = static_cast<int>(all.size());
        all.push_back(std::make_shared<BookRows>(symbol.name));
    }
    if (all[static_cast<size_t>(index)]->append(*book_, recv, quote ? symbol.quote : symbol.depth)) return;
    reject(Reject::overflow);
    if (!first) return;
    all.pop_back();
    index = -1;
}

int Batch::group_of(Symbol& symbol) {
    enter(symbol);
    int& group = symbol.group[trade_.kind == Kind::agg_trade];
    if (group < 0) {
        group = static_cast<int>(groups.size());
        groups.push_back({&symbol, symbol.name, trade_.kind});
    }
    groups[static_cast<size_t>(group)].futures |= trade_.futures;
    return group;
}

void Batch::keep(int64_t recv) {
    Symbol& symbol = symbols_.at(trade_.symbol);
    if (trade_.is_void) {
        voids_.emplace_back(group_of(symbol), trade_.id);
        return;
    }
    bool here = symbol.batch == number_;
    Fit price(trade_.price, symbol.price_scale, symbol.known, here, symbol.top_price);
    Fit size(trade_.size, symbol.size_scale, symbol.known, here, symbol.top_size);
    if (!price.good || !size.good) return reject(Reject::overflow);
    int group = group_of(symbol);
    symbol.top_price = std::max(widened(symbol.top_price, price.scale - symbol.price_scale), std::abs(price.mantissa));
    symbol.top_size = std::max(widened(symbol.top_size, size.scale - symbol.size_scale), std::abs(size.mantissa));
    symbol.price_scale = price.scale;
    symbol.size_scale = size.scale;
    symbol.known = true;
    rows_.push_back({trade_.id, trade_.first, trade_.ts, recv, price.mantissa, size.mantissa, trade_.count, group,
                     trade_.side, static_cast<int8_t>(price.scale), static_cast<int8_t>(size.scale)});
}

std::shared_ptr<Columns> Batch::finish() {
    for (const Row& row : rows_) ++groups[static_cast<size_t>(row.group)].rows;
    for (auto& [group, id] : voids_) ++groups[static_cast<size_t>(group)].voids;
    size_t rows = 0, voids = 0;
    std::vector<size_t> next, next_void;
    for (GroupInfo& group : groups) {
        next.push_back(group.start = rows);
        next_void.push_back(group.voids_start = voids);
        rows += group.rows;
        voids += group.voids;
        group.price_scale = group.symbol->price_scale;
        group.size_scale = group.symbol->size_scale;
    }
    auto out = std::make_shared<Columns>();
    out->rows = rows;
    out->voids = voids;
    out->block = std::make_unique_for_overwrite<int64_t[]>(Columns::WIDE * rows + voids + (5 * rows + 7) / 8 + 1);
    using C = Columns;
    int64_t* column[C::WIDE];
    for (size_t i = 0; i < C::WIDE; ++i) column[i] = out->wide(i);
    int32_t* count = out->count();
    int8_t* side = out->side();
    for (const Row& row : rows_) {
        const GroupInfo& group = groups[static_cast<size_t>(row.group)];
        size_t i = next[static_cast<size_t>(row.group)]++;
        column[C::trade_id][i] = row.id;
        column[C::first_id][i] = row.first;
        column[C::ts_event][i] = row.ts;
        column[C::ts_recv][i] = row.recv;
        column[C::price][i] = widened(row.price, group.price_scale - row.price_scale);
        column[C::size][i] = widened(row.size, group.size_scale - row.size_scale);
        count[i] = row.count;
        side[i] = row.side;
    }
    for (auto& [group, id] : voids_) out->void_ids()[next_void[static_cast<size_t>(group)]++] = id;
    return out;
}

}  // namespace tapewick::codec
