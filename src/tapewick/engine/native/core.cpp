#include "core.hpp"

#include <algorithm>
#include <stdexcept>

namespace tapewick {

namespace {
bool is_setting(i64 ns) { return 0 <= ns && ns < SETTING_END; }
}  // namespace

TapeCore::TapeCore(std::int32_t number, i64 lateness, i64 grace, i64 keep, bool contiguous)
    : number(number), lateness(lateness), grace(grace), keep(keep), contiguous(contiguous), ledger_(lateness) {
    if (!is_setting(lateness) || !is_setting(grace) || !is_setting(keep))
        throw std::invalid_argument("lateness, grace and keep must be at least 0 and below 2**61 ns");
    second_.open_time = NO_TIME;
}

void TapeCore::restore(std::vector<Range> ranges, const std::vector<Row>& rows, const std::array<i64, FRAMES>& newest) {
    ledger_.restore(std::move(ranges));
    taken_watermark_ = NO_TIME;
    for (std::size_t tf = 0; tf < FRAMES; ++tf) frames_[tf].newest = newest[tf];
    load(rows);
    newest_ts = NO_TIME;
    for (const Frame& frame : frames_)
        for (const Row& row : frame.rows()) newest_ts = std::max(newest_ts, row.last_ts);
}

Row TapeCore::blank(int tf) const {
    Row row;
    row.number = number;
    row.tf = tf;
    row.complete = contiguous ? 0 : -1;
    return row;
}

void TapeCore::load(const std::vector<Row>& rows) {
    for (const Row& stored : rows) {
        if (stored.tf < 0 || stored.tf >= FRAMES) throw std::out_of_range("a row's tf is no timeframe index");
        Row row = stored;
        row.number = number;
        row.origin = row.filled = row.change = 0;
        row.reason = PROOF;
        row.changed = 0;
        std::fill(std::begin(row.reserved), std::end(row.reserved), std::uint8_t{0});
        Frame& frame = frames_[static_cast<std::size_t>(row.tf)];
        frame.insert(row);
        frame.due_at = std::min(frame.due_at, due(row, bucket_end(row.tf, row.open_time)));
    }
}

// Brings the minutes that came out of order into `deltas_`.
void TapeCore::gather() {
    if (late_.empty()) return;
    const auto sorted = static_cast<std::ptrdiff_t>(deltas_.size());
    for (const auto& [open, row] : late_) deltas_.push_back(row);
    std::inplace_merge(deltas_.begin(), deltas_.begin() + sorted, deltas_.end(),
                       [](const Row& a, const Row& b) { return a.open_time < b.open_time; });
    late_.clear();
    current_ = nullptr;
    current_span_ = {0, 0};
}

bool TapeCore::pending() const {
    if (!deltas_.empty() || ledger_.changed()) return true;
    return std::any_of(frames_.begin(), frames_.end(), [this](const Frame& f) { return f.due_at <= watermark; });
}

std::vector<Key> TapeCore::missing() {
    gather();
    std::vector<Key> keys;
    for (int tf = 1; tf < FRAMES; ++tf) {
        const Frame& frame = frames_[static_cast<std::size_t>(tf)];
        Span span{0, 0};
        for (const Row& delta : deltas_) {
            if (delta.open_time >= span.open && delta.open_time < span.end) continue;
            span = bucket(tf, delta.open_time);
            if (span.open > frame.newest) break;
            if (!frame.find(span.open)) keys.push_back({tf, span.open});
        }
    }
    return keys;
}

// Multiplies every held price and size; false, and nothing changed, if one would leave its width.
bool TapeCore::rescale(i64 price_factor, i64 size_factor) {
    gather();
    const u128 price = static_cast<u128>(price_factor), size = static_cast<u128>(size_factor), both = price * size;
    constexpr u128 LIMIT = ~u128{0} >> 1;
    const auto fits64 = [](i64 v, u128 factor) { return static_cast<u128>(v) * factor <= u128{INT64_MAX}; };
    const auto fits = [&](const Row& r) {
        return fits64(r.high, price) && r.volume.bits() <= LIMIT / size && r.quote_volume.bits() <= LIMIT / both;
    };
    const auto each = [this](auto&& visit) {
        for (Frame& frame : frames_)
            for (Row& row : frame.rows()) visit(row);
        for (Row& row : deltas_) visit(row);
        visit(second_);
    };
    bool ok = true;
    each([&](const Row& row) { ok = ok && fits(row); });
    for (i64 i = 0; recent_ && i < RING; ++i) ok = ok && fits64(recent_[i].price, price) && fits64(recent_[i].size, size);
    if (!ok) return false;
    each([&](Row& row) {
        for (i64* v : {&row.open, &row.high, &row.low, &row.close}) *v *= price_factor;
        for (Sum* sum : {&row.volume, &row.taker_buy_volume}) sum->set(sum->bits() * size);
        for (Sum* sum : {&row.quote_volume, &row.taker_buy_quote_volume}) sum->set(sum->bits() * both);
    });
    for (i64 i = 0; recent_ && i < RING; ++i) {
        recent_[i].price *= price_factor;
        recent_[i].size *= size_factor;
    }
    return true;
}

}  // namespace tapewick
