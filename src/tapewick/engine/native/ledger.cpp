#include "ledger.hpp"

#include <algorithm>

namespace tapewick {

void Ledger::restore(std::vector<Range> ranges) {
    ranges_ = std::move(ranges);
    for (Range& r : ranges_) r.stored = true;
    steady_ = false;
}

bool Ledger::covers_inner(i64 id) const {
    const auto after =
        std::upper_bound(ranges_.begin(), ranges_.end(), id, [](i64 v, const Range& r) { return v < r.first; });
    return after != ranges_.begin() && id <= std::prev(after)->last;
}

std::uint64_t Ledger::covered(i64 first, i64 last) const {
    auto at = std::partition_point(ranges_.begin(), ranges_.end(), [first](const Range& r) { return r.last < first; });
    std::uint64_t count = 0;
    for (; at != ranges_.end() && at->first <= last; ++at)
        count += static_cast<std::uint64_t>(std::min(last, at->last) - std::max(first, at->first)) + 1;
    return count;
}

void Ledger::add_anywhere(i64 first, i64 last, i64 ts) {
    // Ranges that overlap or adjoin [first, last] are [low, high); written so that ids up to 2^63-1 do not overflow.
    const auto begin = ranges_.begin();
    const auto low = std::partition_point(begin, ranges_.end(), [&](const Range& r) { return r.last < first - 1; });
    const auto high = std::partition_point(
        low, ranges_.end(), [&](const Range& r) { return r.first <= last || r.first - 1 == last; });
    if (high - low == 1 && low->first <= first && last <= low->last) return;

    const Range fresh{first, last, ts, ts};
    const auto at = static_cast<std::size_t>(low - begin), to = static_cast<std::size_t>(high - begin);
    // A later trade behind a new hole settles no candle; anything else here may.
    const bool appended = at == ranges_.size() && first > 0 && ts != NO_TIME && tail_ts() != NO_TIME && ts >= tail_ts();
    steady_ = steady_ && appended;
    note_window(at, to, fresh);
    const Range whole = join(at, to, fresh);
    if (at == to) {
        ranges_.insert(low, whole);
    } else {
        *low = whole;
        ranges_.erase(low + 1, high);
    }
    touch(at);
}

// One range in place of the ranges [low, high) (may be none) and `fresh`.
Range Ledger::join(std::size_t low, std::size_t high, const Range& fresh) {
    Range whole = fresh;
    if (low < high) {
        whole.first = std::min(fresh.first, ranges_[low].first);
        whole.last = std::max(fresh.last, ranges_[high - 1].last);
    }
    whole.first_ts = whole.last_ts = NO_TIME;
    const auto take = [&whole](const Range& r) {
        if (!r.timed()) return;
        if (!whole.timed()) whole.first_ts = r.first_ts;
        whole.last_ts = r.last_ts;
    };
    bool taken = false;  // `fresh` has its place by its last id: that is its trade's
    for (std::size_t i = low; i < high; ++i) {
        const Range& old = ranges_[i];
        if (!taken && fresh.last < old.last) {
            take(fresh);
            taken = true;
        }
        take(old);
        if (!old.stored) continue;
        if (old.first == whole.first)
            whole.stored = true;
        else
            gone_.push_back(old.first);
    }
    if (!taken) take(fresh);
    return whole;
}

// Remembers where completeness may have been settled for candles that got no trade.
void Ledger::note_window(std::size_t low, std::size_t high, const Range& fresh) {
    if (low == high) {
        holes_changed_ = holes_changed_ || !ranges_.empty();
        return;
    }
    const Range &left = ranges_[low], &right = ranges_[high - 1];
    // The tape grew at its end: the rows that may settle are in memory.
    if (high - low == 1 && high == ranges_.size() && left.first <= fresh.first) return;
    holes_changed_ = true;
    i64 lowest = INT64_MAX, highest = NO_TIME;
    const auto edge = [&](const Range& r) {
        if (!r.timed()) return;
        lowest = std::min({lowest, r.first_ts, r.last_ts});
        highest = std::max({highest, r.first_ts, r.last_ts});
    };
    for (std::size_t i = low; i < high; ++i) edge(ranges_[i]);
    edge(fresh);
    if (highest == NO_TIME) return;
    // Inside joined ranges nothing changes: only between their inner edges.
    i64 start = left.first <= fresh.first && left.timed() ? left.last_ts : lowest;
    const i64 end = right.last >= fresh.last && right.timed() ? right.first_ts : highest;
    if (fresh.first <= 0) start = -(i64{1} << 62);
    push_window({std::min(start, end) - slack_, std::max(start, end) + slack_ + 1});
}

void Ledger::push_window(Window window) {
    if (!windows_.empty() && window.from <= windows_.back().to && windows_.back().from <= window.to) {
        window.from = std::min(window.from, windows_.back().from);
        window.to = std::max(window.to, windows_.back().to);
        windows_.pop_back();
    }
    windows_.push_back(window);
}

void Ledger::drain(std::vector<Range>& put, std::vector<i64>& gone) {
    for (std::size_t i = touched_from_; i < ranges_.size(); ++i) {
        Range& r = ranges_[i];
        if (!r.touched) continue;
        r.touched = false;
        r.stored = true;
        put.push_back(r);
    }
    std::sort(gone_.begin(), gone_.end());
    gone = std::move(gone_);
    gone_.clear();
    windows_.clear();
    touched_from_ = static_cast<std::size_t>(-1);
    holes_changed_ = false;
    steady_ = true;
    drained_tail_ts_ = tail_ts();
}

}  // namespace tapewick
