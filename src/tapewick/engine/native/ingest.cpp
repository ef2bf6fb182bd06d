// The hot path: screen, dedupe, number and fold each trade of a batch, without allocating for one.
#include <algorithm>

#include "core.hpp"

namespace tapewick {

namespace {

// Trades of a batch with the dtypes of TradeBatch, each column packed.
struct Packed {
    const Batch& b;
    Trade operator()(std::size_t i) const {
        return {b.id.get<i64>(i), b.first.get<i64>(i), b.count.get<std::int32_t>(i), b.ts.get<i64>(i),
                b.price.get<i64>(i), b.size.get<i64>(i), b.side.get<std::int8_t>(i)};
    }
    static bool fits(const Batch& b) {
        return b.id.packed<i64>() && b.first.packed<i64>() && b.count.packed<std::int32_t>() && b.ts.packed<i64>() &&
               b.price.packed<i64>() && b.size.packed<i64>() && b.side.packed<std::int8_t>();
    }
};

// Trades of any other batch.
struct Scattered {
    const Batch& b;
    Trade operator()(std::size_t i) const {
        const i64 side = std::clamp<i64>(b.side.any(i), -2, 2);  // ±2: not a side
        return {b.id.any(i), b.first.any(i), b.count.any(i), b.ts.any(i), b.price.any(i), b.size.any(i),
                static_cast<int>(side)};
    }
};

}  // namespace

void TapeCore::ingest(const Batch& batch, Ingested& out) {
    if (!recent_ && batch.length()) recent_ = std::make_unique<Recent[]>(RING);
    const i64 latest = std::min(batch.latest, LATEST);
    Ids quarantined;
    if (Packed::fits(batch))
        fold(Packed{batch}, batch, latest, out, quarantined);
    else
        fold(Scattered{batch}, batch, latest, out, quarantined);
    std::sort(quarantined.begin(), quarantined.end());
    for (const auto& [first, last] : batch.covers)
        if (0 <= first && first <= last) cover(first, last, quarantined);
    if (out.taken) watermark = std::max(watermark, newest_ts - lateness);
    if (batch.clock > 0) watermark = std::max(watermark, minus(std::min(batch.clock, latest), lateness));
}

template <class Load>
void TapeCore::fold(Load load, const Batch& batch, i64 latest, Ingested& out, Ids& quarantined) {
    const std::int8_t reason = batch.reason ? batch.reason : std::int8_t{LATE};
    const i64 seq_before = seq;
    std::size_t second_from = 0;  // accepted trades before this one are older than the newest second
    i64 second_end = second_.open_time == NO_TIME ? NO_TIME : second_.open_time + SECOND;
    for (std::size_t i = 0; i < batch.length(); ++i) {
        const Trade t = load(i);
        const u128 quote = static_cast<u128>(static_cast<i128>(t.price) * t.size);
        const Reject why = screen(t, quote, batch.allow_zero, latest);
        if (why != TAKEN) [[unlikely]] {
            ++out.rejects[why];
            if (!batch.covers.empty() && why != DUPLICATE && why != CONFLICT)
                quarantined.emplace_back(0 <= t.first && t.first <= t.id ? t.first : t.id, t.id);
            continue;
        }
        if (t.ts >= second_end) {
            second_end = bucket(0, t.ts).end;
            second_from = out.taken;
            second_.open_time = NO_TIME;
        }
        out.accepted[out.taken++] = static_cast<i64>(i);
        recent_[static_cast<std::size_t>(t.id % RING)] = {t.id, t.ts, t.price, t.size};
        if (contiguous) ledger_.add(t.first, t.id, t.ts);
        if (t.ts < current_span_.open || t.ts >= current_span_.end) current_ = &minute(t.ts);
        current_->fold(t, quote, ++seq, reason);
        newest_ts = std::max(newest_ts, t.ts);
    }
    if (second_.open_time == NO_TIME && out.taken) {
        second_ = blank(0);
        second_.open_time = second_end - SECOND;
    }
    for (std::size_t k = second_from; k < out.taken; ++k) {
        const Trade t = load(static_cast<std::size_t>(out.accepted[k]));
        if (t.ts < second_.open_time) continue;
        const u128 quote = static_cast<u128>(t.price) * static_cast<u128>(t.size);
        second_.fold(t, quote, seq_before + static_cast<i64>(k) + 1, reason);
    }
}

inline Reject TapeCore::screen(const Trade& t, u128 quote, bool allow_zero, i64 latest) const {
    if (t.first < 0 || t.id < t.first || t.count < 1 || t.count - 1 > t.id - t.first || t.count > INT32_MAX)
        return BAD_ID;
    if (t.price <= 0) return BAD_PRICE;
    if (t.size < 0 || (t.size == 0 && !allow_zero)) return BAD_SIZE;
    if (t.ts < EARLIEST || t.ts > latest) return BAD_TIME;
    if (t.side < -1 || t.side > 1) return BAD_SIDE;
    if (quote >> 96) return OVERFLOWS;  // so that 128-bit sums hold 2^31 of the largest trades
    return contiguous && ledger_.reaches(t.first) ? known(t) : TAKEN;
}

// What the ledger says of a record that does not lie above all it covers.
Reject TapeCore::known(const Trade& t) const {
    if (t.id == t.first) {
        if (!ledger_.covers(t.id)) return TAKEN;
    } else {
        const std::uint64_t ids = static_cast<std::uint64_t>(t.id - t.first) + 1;
        const std::uint64_t covered = ledger_.covered(t.first, t.id);
        if (covered == 0) return TAKEN;
        if (covered < ids) {
            // Ids between its own may be another's: it then has no more trades than ids are free.
            const bool fits = static_cast<std::uint64_t>(t.count) <= ids - covered;
            return fits && !ledger_.covers(t.id) ? TAKEN : PARTIAL;
        }
    }
    const Recent& known = recent_[static_cast<std::size_t>(t.id % RING)];
    const bool differs = known.ts != t.ts || known.price != t.price || known.size != t.size;
    return known.price && known.id == t.id && differs ? CONFLICT : DUPLICATE;
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
    if (deltas_.capacity() == deltas_.size() && deltas_.size() < spare().capacity()) {
        spare().assign(deltas_.begin(), deltas_.end());
        deltas_.swap(spare());
        spare().clear();
    }
    deltas_.emplace_back().open_time = open;
    return deltas_.back();
}

// Covers [first, last] but for the `quarantined` ranges (ascending): those ids exist and are not stored.
void TapeCore::cover(i64 first, i64 last, const Ids& quarantined) {
    for (const auto& [low, high] : quarantined) {
        if (high < first) continue;
        if (low > last) break;
        if (low > first) ledger_.add(first, low - 1, NO_TIME);
        if (high >= last) return;
        first = high + 1;
    }
    ledger_.add(first, last, NO_TIME);
}

}  // namespace tapewick
