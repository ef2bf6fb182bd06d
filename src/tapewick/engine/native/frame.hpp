// The cached rows of one timeframe, ascending by open time.
#pragma once

#include <algorithm>
#include <span>
#include <vector>

#include "row.hpp"

namespace tapewick {

class Frame {
public:
    i64 newest = NO_TIME;       // open time of the newest row ever stored
    i64 due_at = INT64_MAX;     // watermark at which the next row changes state by itself
    i64 look_from = INT64_MAX;  // open time of the lowest row loaded or changed since the last take

    std::span<Row> rows() { return std::span(rows_).subspan(head_); }
    std::span<const Row> rows() const { return std::span(rows_).subspan(head_); }

    // Index of the first row that opens at or after `open_time`; tries the newest rows first.
    std::size_t at(i64 open_time) const {
        const auto all = rows();
        if (all.empty() || all.back().open_time < open_time) return all.size();
        if (all.size() == 1 || all[all.size() - 2].open_time < open_time) return all.size() - 1;
        const auto found = std::partition_point(
            all.begin(), all.end(), [open_time](const Row& r) { return r.open_time < open_time; });
        return static_cast<std::size_t>(found - all.begin());
    }

    const Row* find(i64 open_time) const {
        const std::size_t i = at(open_time);
        return i < rows().size() && rows()[i].open_time == open_time ? &rows()[i] : nullptr;
    }

    // Add a row unless its open time is there already.
    void insert(const Row& row) {
        const std::size_t i = at(row.open_time);
        if (i < rows().size() && rows()[i].open_time == row.open_time) return;
        rows_.insert(rows_.begin() + static_cast<std::ptrdiff_t>(head_ + i), row);
        look_from = std::min(look_from, row.open_time);
    }

    // row ⊕ delta for each of `deltas` (ascending); rows that are not there start as `blank`.
    void merge(std::span<const Row> deltas, const Row& blank) {
        if (deltas.empty()) return;
        look_from = std::min(look_from, deltas.front().open_time);
        const std::size_t known = rows_.size();
        std::size_t i = head_ + at(deltas.front().open_time);
        for (const Row& delta : deltas) {
            while (i < known && rows_[i].open_time < delta.open_time) ++i;
            const bool found = i < known && rows_[i].open_time == delta.open_time;
            if (found) {
                rows_[i].reason = PROOF;
                rows_[i].merge(delta);
            } else {
                Row& row = rows_.emplace_back(delta);
                row.number = blank.number;
                row.tf = blank.tf;
                row.complete = blank.complete;
                newest = std::max(newest, delta.open_time);
            }
            (found ? rows_[i] : rows_.back()).changed = 1;
        }
        const auto order = [](const Row& a, const Row& b) { return a.open_time < b.open_time; };
        if (known > head_ && known < rows_.size() && order(rows_[known], rows_[known - 1])) {
            const auto first = rows_.begin() + static_cast<std::ptrdiff_t>(head_);
            std::inplace_merge(first, rows_.begin() + static_cast<std::ptrdiff_t>(known), rows_.end(), order);
        }
    }

    // Drop those of the first `count` rows that `waits` does not hold.
    template <class Waits>
    void drop(std::size_t count, Waits waits) {
        std::size_t to = head_ + count;
        for (std::size_t i = to; i-- > head_;)
            if (waits(rows_[i])) rows_[--to] = rows_[i];
        head_ = to;
        // Free the dropped front once it outweighs the rest: constant work per row.
        if (head_ * 2 < rows_.size()) return;
        rows_.erase(rows_.begin(), rows_.begin() + static_cast<std::ptrdiff_t>(head_));
        head_ = 0;
        if (rows_.capacity() > 4 * rows_.size() + 256) rows_.shrink_to_fit();
    }

private:
    std::vector<Row> rows_;  // dropped ones first, up to head_
    std::size_t head_ = 0;
};

}  // namespace tapewick
