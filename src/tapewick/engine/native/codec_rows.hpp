// Exact-decimal JSON rows of candles and trades.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace tapewick::codec {

// A byte buffer that grows by realloc; `reserve` before writing through `p`.
class Output {
public:
    explicit Output(size_t size);
    ~Output();
    Output(const Output&) = delete;
    Output& operator=(const Output&) = delete;

    // Room for `size` more bytes at `p`; throws std::bad_alloc.
    void reserve(size_t size);
    std::string_view text() const { return {start_, static_cast<size_t>(p - start_)}; }

    char* p;

private:
    char* start_;
    char* end_;
};

// The layout of model.CANDLE, 192 packed bytes.
#pragma pack(push, 1)
struct Candle {
    int64_t open_time, open, high, low, close;
    uint64_t volume_lo;
    int64_t volume_hi;
    uint64_t quote_volume_lo;
    int64_t quote_volume_hi;
    uint64_t taker_buy_volume_lo;
    int64_t taker_buy_volume_hi;
    uint64_t taker_buy_quote_volume_lo;
    int64_t taker_buy_quote_volume_hi;
    int64_t trades, first_id, last_id, first_ts, last_ts, first_key, last_seq, pos;
    int32_t number, tf, rev;
    int8_t state, complete, origin, filled, change, reason;
    char reserved[6];
};
#pragma pack(pop)
static_assert(sizeof(Candle) == 192);

struct Format {
    std::string_view instrument;  // JSON text, quotes included
    int price_scale, size_scale;
    bool ns;        // times as decimal strings of ns instead of ms integers
    bool lines;     // JSON Lines instead of one array
    bool text_ids;  // ids as JSON strings
};

struct TradeColumns {
    size_t rows;
    const int64_t *trade_id, *first_id, *ts_event, *ts_recv, *price, *size;
    const int32_t* count;
    const int8_t* side;
    const int64_t* seq;  // may be null
};

// The field of a row that holds a value without a name, or null when all are good.
const char* bad_field(const Candle& row);

void write_candles(Output& out, const Candle* rows, size_t n, const Format& format);
void write_trades(Output& out, const TradeColumns& trades, const Format& format);

}  // namespace tapewick::codec
