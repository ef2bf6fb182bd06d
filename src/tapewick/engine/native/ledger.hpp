// The coverage ledger: which trade ids are known to be completely stored.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "calendar.hpp"

namespace tapewick {

// Covered ids [first, last] and the times of the lowest and highest known trade inside.
struct Range {
    i64 first, last, first_ts, last_ts;
    bool stored = false;   // a store has, or is about to have, a range of this `first`
    bool touched = false;  // new or grown since the last drain

    bool timed() const { return first_ts != NO_TIME; }
};

struct Window {
    i64 from, to;  // [from, to) in ns
};

// Disjoint, merged, ascending ranges.
class Ledger {
public:
    explicit Ledger(i64 slack) : slack_(slack) {}

    void restore(std::vector<Range> ranges);

    bool covers(i64 id) const {
        if (ranges_.empty() || id > ranges_.back().last) return false;
        return covers_inner(id);
    }

    // Whether an id of [first, …] may be covered: false for all that continues the tape.
    bool reaches(i64 first) const { return !ranges_.empty() && first <= ranges_.back().last; }

    // How many ids of [first, last] are covered.
    std::uint64_t covered(i64 first, i64 last) const;

    // Cover [first, last], 0 ≤ first ≤ last; `ts` is the time of the record there, NO_TIME if it is void.
    void add(i64 first, i64 last, i64 ts) {
        // Nearly every live trade continues the tape: no search, no window, no hole.
        if (!ranges_.empty() && first - 1 == ranges_.back().last && ts != NO_TIME) {
            Range& tail = ranges_.back();
            steady_ = steady_ && tail.timed() && ts >= tail.last_ts;
            if (!tail.timed()) tail.first_ts = ts;
            tail.last = last;
            tail.last_ts = ts;
            touch(ranges_.size() - 1);
            return;
        }
        add_anywhere(first, last, ts);
    }

    // Whether one range holds a trade before `start` - slack and one at or after `end` + slack.
    bool proves(i64 start, i64 end) const {
        for (std::size_t i = ranges_.size(); i-- > 0;) {
            const Range& r = ranges_[i];
            if (!r.timed()) continue;
            if (r.last_ts < end + slack_) return false;
            if (r.first <= 0 || r.first_ts < start - slack_) return true;
        }
        return false;
    }

    // Candles that ended at or before this time are proven or not as they were at the last drain.
    // NO_TIME if the ledger did more since then than grow at its end in time order.
    i64 unaffected_until() const { return steady_ ? minus(drained_tail_ts_, slack_) : NO_TIME; }

    // Moves out what a store must put and the `first` of what it must delete, both ascending.
    void drain(std::vector<Range>& put, std::vector<i64>& gone);

    bool changed() const { return touched_from_ < ranges_.size(); }
    bool holes_changed() const { return holes_changed_; }
    i64 tail_ts() const { return ranges_.empty() ? NO_TIME : ranges_.back().last_ts; }
    const std::vector<Range>& ranges() const { return ranges_; }
    const std::vector<Window>& windows() const { return windows_; }

private:
    bool covers_inner(i64 id) const;
    void add_anywhere(i64 first, i64 last, i64 ts);
    Range join(std::size_t low, std::size_t high, const Range& fresh);
    void note_window(std::size_t low, std::size_t high, const Range& fresh);
    void push_window(Window window);
    void touch(std::size_t index) {
        ranges_[index].touched = true;
        if (index < touched_from_) touched_from_ = index;
    }

    i64 slack_;
    std::vector<Range> ranges_;
    std::vector<i64> gone_;
    std::vector<Window> windows_;
    std::size_t touched_from_ = static_cast<std::size_t>(-1);  // no touched range lies below
    i64 drained_tail_ts_ = NO_TIME;
    bool steady_ = false;
    bool holes_changed_ = false;
};

}  // namespace tapewick
