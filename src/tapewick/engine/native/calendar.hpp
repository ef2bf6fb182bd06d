// Candle boundaries: the C++ twin of timeframe.py, tested equal to it on random times.
#pragma once

#include <array>
#include <cstdint>

namespace tapewick {

using i64 = std::int64_t;

inline constexpr i64 SECOND = 1'000'000'000;
inline constexpr i64 MINUTE = 60 * SECOND;
inline constexpr i64 HOUR = 60 * MINUTE;
inline constexpr i64 DAY = 24 * HOUR;
inline constexpr i64 NO_TIME = INT64_MIN;  // stands for "no known trade" where a time is expected

struct Timeframe {
    i64 length;  // of the longest bucket, ns
    i64 offset;  // a bucket opens where (t - offset) % length == 0
};

inline constexpr int FRAMES = 18;  // 1s and the 17 stored ones, in the order of timeframe.py
inline constexpr int MONTH = 17;   // the one frame that follows the calendar

inline constexpr std::array<Timeframe, FRAMES> TIMEFRAMES{{
    {SECOND, 0},   {MINUTE, 0},     {3 * MINUTE, 0}, {5 * MINUTE, 0},  {15 * MINUTE, 0},   {30 * MINUTE, 0},
    {45 * MINUTE, 0}, {HOUR, 0},    {2 * HOUR, 0},   {3 * HOUR, 0},    {4 * HOUR, 0},      {6 * HOUR, 0},
    {8 * HOUR, 0}, {12 * HOUR, 0},  {DAY, 0},        {3 * DAY, DAY},   {7 * DAY, 4 * DAY}, {31 * DAY, 0},
}};

struct Edge {
    int child, parent;
};

// Edges along which deltas flow, children always first; every frame above 1m has one child.
inline constexpr std::array<Edge, 16> TREE{{
    {1, 2}, {1, 3}, {3, 4}, {4, 5}, {4, 6}, {5, 7}, {7, 8}, {7, 9},
    {8, 10}, {8, 11}, {10, 12}, {11, 13}, {13, 14}, {14, 15}, {14, 16}, {14, 17},
}};

struct Span {
    i64 open, end;  // [open, end) in ns
};

constexpr i64 floor_div(i64 a, i64 b) { return a / b - (a % b != 0 && a < 0); }

// First days (counted from 1970-01-01) of the month that holds `day`, and of the next one.
// Counts years from 1 March, so that a leap day is the last day of its year.
constexpr Span month_days(i64 day) {
    constexpr i64 PER_ERA = 146'097;  // days in 400 years
    const i64 since = day + 719'468;  // from 0000-03-01
    const i64 era = floor_div(since, PER_ERA);
    const i64 of_era = since - era * PER_ERA;
    const i64 year = (of_era - of_era / 1'460 + of_era / 36'524 - of_era / (PER_ERA - 1)) / 365;
    const i64 of_year = of_era - (365 * year + year / 4 - year / 100);
    const i64 month = (5 * of_year + 2) / 153;  // 0 = March … 11 = February
    const i64 open = day - of_year + (153 * month + 2) / 5;
    if (month < 11) return {open, day - of_year + (153 * (month + 1) + 2) / 5};
    const i64 next = year + 1;  // the year that ends with this February has a leap day if its number has
    const bool leap = next % 4 == 0 && (next % 100 != 0 || next % 400 == 0);
    return {open, open + 28 + leap};
}

// The bucket of frame `tf` that holds time `t`; |t| must stay a month below the ends of int64.
constexpr Span bucket(int tf, i64 t) {
    if (tf == MONTH) {
        const Span days = month_days(floor_div(t, DAY));
        return {days.open * DAY, days.end * DAY};
    }
    const auto [length, offset] = TIMEFRAMES[static_cast<std::size_t>(tf)];
    const i64 into = (t - offset) % length;
    const i64 open = t - (into < 0 ? into + length : into);
    return {open, open + length};
}

// Exclusive end of the bucket of `tf` that opens at `open`.
constexpr i64 bucket_end(int tf, i64 open) {
    return tf == MONTH ? bucket(tf, open).end : open + TIMEFRAMES[static_cast<std::size_t>(tf)].length;
}

// a - b where `a` may be NO_TIME or near it; stops at NO_TIME. `b` is not negative.
constexpr i64 minus(i64 a, i64 b) { return a < NO_TIME + b ? NO_TIME : a - b; }

}  // namespace tapewick
