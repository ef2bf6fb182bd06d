// One candle in memory: the 192 bytes of numpy's CANDLE dtype, and the arithmetic on them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "calendar.hpp"

namespace tapewick {

__extension__ typedef unsigned __int128 u128;
__extension__ typedef __int128 i128;

enum State : std::int8_t { OPEN = 0, CLOSED = 1, FINAL = 2 };
enum Change : std::int8_t { CHANGE_OPEN = 0, CHANGE_CLOSED = 1, CHANGE_FINAL = 2, CHANGE_REVISED = 3, UNCHANGED = -1 };
enum Reason : std::int8_t { PROOF = 0, LATE = 1 };

// A 128-bit sum as the two words a row stores. Unsigned arithmetic: two's complement, no UB.
struct Sum {
    std::uint64_t lo = 0;
    std::int64_t hi = 0;

    u128 bits() const { return static_cast<u128>(static_cast<std::uint64_t>(hi)) << 64 | lo; }
    void set(u128 v) {
        lo = static_cast<std::uint64_t>(v);
        hi = static_cast<std::int64_t>(static_cast<std::uint64_t>(v >> 64));
    }
    void add(u128 v) { set(bits() + v); }
};

struct Trade {
    i64 id, first, count, ts, price, size;
    int side;
};

// A candle or a delta of one: a commutative monoid under `merge`; `trades` 0 is its zero.
struct Row {
    i64 open_time = 0, open = 0, high = 0, low = 0, close = 0;
    Sum volume, quote_volume, taker_buy_volume, taker_buy_quote_volume;
    i64 trades = 0, first_id = -1, last_id = -1, first_ts = 0, last_ts = 0, first_key = 0, last_seq = 0, pos = 0;
    std::int32_t number = 0, tf = 0, rev = 0;
    std::int8_t state = OPEN, complete = 0, origin = 0, filled = 0, change = 0, reason = PROOF;
    std::uint8_t changed = 0;  // in memory only: a delta was merged since the last take
    std::uint8_t reserved[5] = {};

    void fold(const Trade& t, u128 quote, i64 seq, std::int8_t why) {
        if (trades == 0) {
            high = low = t.price;
            take_open(t.price, t.first, t.ts, t.id);
            take_close(t.price, t.id, t.ts);
        } else {
            if (t.ts < first_ts || (t.ts == first_ts && t.id < first_key)) take_open(t.price, t.first, t.ts, t.id);
            if (t.ts > last_ts || (t.ts == last_ts && t.id > last_id)) take_close(t.price, t.id, t.ts);
            if (t.price > high) high = t.price;
            if (t.price < low) low = t.price;
        }
        // Masked, not branched: the side of the next trade cannot be predicted.
        const u128 bought = t.side > 0 ? ~u128{0} : 0;
        volume.add(static_cast<u128>(t.size));
        quote_volume.add(quote);
        taker_buy_volume.add(static_cast<u128>(t.size) & bought);
        taker_buy_quote_volume.add(quote & bought);
        trades += t.count;
        last_seq = seq;
        if (why > reason) reason = why;
    }

    // this ⊕ other; `other` has trades.
    void merge(const Row& o) {
        if (trades == 0) {
            high = o.high;
            low = o.low;
            take_open(o.open, o.first_id, o.first_ts, o.first_key);
            take_close(o.close, o.last_id, o.last_ts);
        } else {
            if (o.first_ts < first_ts || (o.first_ts == first_ts && o.first_key < first_key))
                take_open(o.open, o.first_id, o.first_ts, o.first_key);
            if (o.last_ts > last_ts || (o.last_ts == last_ts && o.last_id > last_id))
                take_close(o.close, o.last_id, o.last_ts);
            if (o.high > high) high = o.high;
            if (o.low < low) low = o.low;
        }
        volume.add(o.volume.bits());
        quote_volume.add(o.quote_volume.bits());
        taker_buy_volume.add(o.taker_buy_volume.bits());
        taker_buy_quote_volume.add(o.taker_buy_quote_volume.bits());
        trades += o.trades;
        if (o.last_seq > last_seq) last_seq = o.last_seq;
        if (o.reason > reason) reason = o.reason;
    }

private:
    void take_open(i64 price, i64 id, i64 ts, i64 key) {
        open = price;
        first_id = id;
        first_ts = ts;
        first_key = key;
    }
    void take_close(i64 price, i64 id, i64 ts) {
        close = price;
        last_id = id;
        last_ts = ts;
    }
};

static_assert(sizeof(Row) == 192 && std::is_trivially_copyable_v<Row>);
static_assert(offsetof(Row, volume) == 40 && offsetof(Row, trades) == 104 && offsetof(Row, pos) == 160);
static_assert(offsetof(Row, number) == 168 && offsetof(Row, state) == 180 && offsetof(Row, reason) == 185);

}  // namespace tapewick
