// One instrument's tape and candles: the C++ twin of _reference.py. No Python, no I/O, no clock.
#pragma once

#include <array>
#include <map>
#include <memory>
#include <vector>

#include "column.hpp"
#include "frame.hpp"
#include "ledger.hpp"

namespace tapewick {

enum Reject { DUPLICATE, CONFLICT, BAD_ID, BAD_PRICE, BAD_SIZE, BAD_TIME, BAD_SIDE, OVERFLOWS, PARTIAL, TAKEN };
inline constexpr int REJECTS = TAKEN;

inline constexpr i64 EARLIEST = 1'230'768'000 * SECOND;  // 2009-01-01: nothing traded on chain or venue before
inline constexpr i64 LATEST = i64{1} << 62;              // in 2116: a time ± any legal setting stays within 64 bits
inline constexpr i64 RING = 1024;                        // recent trades kept to tell a conflict from a duplicate
inline constexpr i64 SETTING_END = i64{1} << 61;

using Ids = std::vector<std::pair<i64, i64>>;  // closed id ranges

// Trades as columns of equal length, and what their source says of them.
struct Batch {
    Column id, first, count, ts, price, size, side;
    Ids covers{};
    i64 latest = INT64_MAX, clock = 0;
    std::int8_t reason = 0;
    bool allow_zero = false;

    std::size_t length() const { return id.length; }
};

struct Ingested {
    i64* accepted;  // room for as many indices as the batch is long
    std::size_t taken = 0;
    std::array<i64, REJECTS> rejects{};
};

struct Taken {
    std::vector<Row> rows;
    std::vector<Range> put;
    std::vector<i64> gone;
    bool holes_changed = false;

    void clear() {
        if (rows.capacity() > KEPT_ROWS) rows = {};
        rows.clear();
        put.clear();
        gone.clear();
    }
    static constexpr std::size_t KEPT_ROWS = 16'384;  // 3 MB
};

struct Key {
    i64 tf, open_time;
};

class TapeCore {
public:
    const std::int32_t number;
    const i64 lateness, grace, keep;
    const bool contiguous;
    i64 seq = 0, pos = 0, watermark = NO_TIME, newest_ts = NO_TIME;

    TapeCore(std::int32_t number, i64 lateness, i64 grace, i64 keep, bool contiguous);

    void restore(std::vector<Range> ranges, const std::vector<Row>& rows, const std::array<i64, FRAMES>& newest);
    void load(const std::vector<Row>& rows);
    void ingest(const Batch& batch, Ingested& out);
    bool pending() const;
    std::size_t minutes() const { return deltas_.size() + late_.size(); }  // that wait to be taken
    std::vector<Key> missing();
    void take(Taken& out);
    std::vector<Row> live();
    bool rescale(i64 price_factor, i64 size_factor);
    const Ledger& ledger() const { return ledger_; }

private:
    struct Recent {
        i64 id, ts, price, size;  // price 0: empty
    };
    using Deltas = std::vector<Row>;

    template <class Load>
    void fold(Load load, const Batch& batch, i64 latest, Ingested& out, Ids& quarantined);
    Reject screen(const Trade& t, u128 quote, bool allow_zero, i64 latest) const;
    Reject known(const Trade& t) const;
    Row& minute(i64 ts);
    static Deltas& spare();
    void gather();
    void cover(i64 first, i64 last, const Ids& quarantined);
    Row blank(int tf) const;
    i64 due(const Row& row, i64 end) const;
    Change settle(Row& row, i64 end) const;
    void settle_frame(int tf, i64 settled_until, std::vector<Row>& out);
    void prune(int tf);
    bool live_row(int tf, Row& out) const;

    Ledger ledger_;
    std::unique_ptr<Recent[]> recent_;  // by id modulo RING; allocated by the first trade
    Deltas deltas_;                     // pending, ascending by 1m open time
    std::map<i64, Row> late_;           // pending minutes that came out of order; `gather` merges them in
    Row* current_ = nullptr;            // the delta folded into last, and its minute
    Span current_span_{0, 0};
    Row second_;  // the newest 1s candle since the start
    std::array<Frame, FRAMES> frames_;
    i64 taken_watermark_ = NO_TIME;  // as of the last take
};

}  // namespace tapewick
