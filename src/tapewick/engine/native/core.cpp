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

void TapeCore::ingest(const Batch& batch, Ingested& out) {
    const i64 latest = std::min(batch.latest, LATEST);
    const std::int8_t reason = batch.reason ? batch.reason : std::int8_t{LATE};
    std::vector<std::pair<i64, i64>> quarantined;
    out.accepted.resize(batch.length());
    if (!recent_ && batch.length()) recent_ = std::make_unique<Recent[]>(RING);
    std::size_t taken = 0;
    const bool usual = batch.count.width == 4 && batch.side.width == 1 && batch.id.width == 8 &&
                       batch.first.width == 8 && batch.ts.width == 8 && batch.price.width == 8 && batch.size.width == 8;
    for (std::size_t i = 0; i < batch.length(); ++i) {
        Trade t;
        if (usual) {
            t = {batch.id.get<i64>(i),    batch.first.get<i64>(i), batch.count.get<std::int32_t>(i),
                 batch.ts.get<i64>(i),    batch.price.get<i64>(i), batch.size.get<i64>(i),
                 static_cast<int>(batch.side.get<std::int8_t>(i))};
        } else {
            const i64 side = batch.side.any(i);
            t = {batch.id.any(i), batch.first.any(i), batch.count.any(i), batch.ts.any(i), batch.price.any(i),
                 batch.size.any(i), side < -1 || side > 1 ? 2 : static_cast<int>(side)};
        }
        const u128 quote = static_cast<u128>(static_cast<i128>(t.price) * t.size);
        const Reject why = screen(t, quote, batch, latest);
        if (why == TAKEN) {
            out.accepted[taken++] = static_cast<i64>(i);
            take_in(t, quote, reason);
            continue;
        }
        ++out.rejects[why];
        if (batch.has_covers && why != DUPLICATE && why != CONFLICT)
            quarantined.emplace_back(0 <= t.first && t.first <= t.id ? t.first : t.id, t.id);
    }
    out.accepted.resize(taken);
    std::sort(quarantined.begin(), quarantined.end());
    for (const auto& [first, last] : batch.covers)
        if (0 <= first && first <= last) cover(first, last, quarantined);
    if (taken) watermark = std::max(watermark, newest_ts - lateness);
    if (batch.clock > 0) watermark = std::max(watermark, minus(std::min(batch.clock, latest), lateness));
}

Reject TapeCore::screen(const Trade& t, u128 quote, const Batch& batch, i64 latest) const {
    if (t.first < 0 || t.id < t.first || t.count < 1 || t.count - 1 > t.id - t.first || t.count > INT32_MAX)
        return BAD_ID;
    if (t.price <= 0) return BAD_PRICE;
    if (t.size < 0 || (t.size == 0 && !batch.allow_zero)) return BAD_SIZE;
    if (t.ts < EARLIEST || t.ts > latest) return BAD_TIME;
    if (t.side < -1 || t.side > 1) return BAD_SIDE;
    if (quote >> 96) return OVERFLOWS;  // so that 128-bit sums hold 2^31 of the largest trades
    if (contiguous && ledger_.covers(t.id)) {
        const Recent& known = recent_[static_cast<std::size_t>(t.id % RING)];
        const bool differs = known.ts != t.ts || known.price != t.price || known.size != t.size;
        return known.price && known.id == t.id && differs ? CONFLICT : DUPLICATE;
    }
    return TAKEN;
}

void TapeCore::take_in(const Trade& t, u128 quote, std::int8_t reason) {
    ++seq;
    recent_[static_cast<std::size_t>(t.id % RING)] = {t.id, t.ts, t.price, t.size};
    if (contiguous) ledger_.add(t.first, t.id, t.ts);
    if (t.ts < current_span_.open || t.ts >= current_span_.end) current_ = &minute(t.ts);
    current_->fold(t, quote, seq, reason);
    if (second_.open_time == NO_TIME || t.ts >= second_.open_time + SECOND) {
        second_ = blank(0);
        second_.open_time = bucket(0, t.ts).open;
    }
    if (t.ts >= second_.open_time) second_.fold(t, quote, seq, reason);
    newest_ts = std::max(newest_ts, t.ts);
}

// The pending delta of the minute that holds `ts`; remembers its span.
Row& TapeCore::minute(i64 ts) {
    current_span_ = bucket(1, ts);
    const i64 open = current_span_.open;
    if (!deltas_.empty() && open <= deltas_.back().open_time) {
        if (open == deltas_.back().open_time) return deltas_.back();
        const auto at = std::partition_point(
            deltas_.begin(), deltas_.end(), [open](const Row& r) { return r.open_time < open; });
        if (at->open_time == open) return *at;
        Row& late = late_[open];
        late.open_time = open;
        return late;
    }
    deltas_.emplace_back().open_time = open;
    return deltas_.back();
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

// Covers [first, last] but for the `quarantined` ranges (ascending): those ids exist and are not stored.
void TapeCore::cover(i64 first, i64 last, const std::vector<std::pair<i64, i64>>& quarantined) {
    for (const auto& [low, high] : quarantined) {
        if (high < first) continue;
        if (low > last) break;
        if (low > first) ledger_.add(first, low - 1, NO_TIME);
        if (high >= last) return;
        first = high + 1;
    }
    ledger_.add(first, last, NO_TIME);
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
