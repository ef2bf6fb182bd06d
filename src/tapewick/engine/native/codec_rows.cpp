#include "codec_rows.hpp"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <new>

#include "codec_number.hpp"

namespace tapewick::codec {

namespace {

// More than the longest row: four 80-digit sums, twelve 40-digit numbers and all keys.
constexpr size_t ROW_BYTES = 2048;
constexpr size_t TYPICAL_ROW = 480;

constexpr const char* TIMEFRAMES[] = {"1s", "1m", "3m", "5m", "15m", "30m", "45m", "1h", "2h",
                                      "3h", "4h", "6h", "8h", "12h", "1d",  "3d",  "1w", "1M"};
constexpr const char* STATES[] = {"open", "closed", "final"};
constexpr const char* ORIGINS[] = {"tape", "import"};

template <size_t N>
void put(Output& out, const char (&text)[N]) {
    std::memcpy(out.p, text, N - 1);
    out.p += N - 1;
}

void put(Output& out, std::string_view text) {
    std::memcpy(out.p, text.data(), text.size());
    out.p += text.size();
}

struct Pairs {
    char text[200];
    constexpr Pairs() : text() {
        for (int i = 0; i < 100; ++i) {
            text[2 * i] = static_cast<char>('0' + i / 10);
            text[2 * i + 1] = static_cast<char>('0' + i % 10);
        }
    }
};
constexpr Pairs PAIRS;

// Digits of `value` right-aligned so that they end at `end`; where they start.
char* digits_before(char* end, uint64_t value) {
    while (value >= 100) {
        end -= 2;
        std::memcpy(end, PAIRS.text + 2 * (value % 100), 2);
        value /= 100;
    }
    if (value < 10) {
        *--end = static_cast<char>('0' + value);
        return end;
    }
    end -= 2;
    std::memcpy(end, PAIRS.text + 2 * value, 2);
    return end;
}

char* digits_before(char* end, u128 value) {
    while (value >> 64) {
        // One division, not two: the compiler does not share it between / and %.
        u128 above = value / POW10[19];
        char* stop = end - 19;
        end = digits_before(end, static_cast<uint64_t>(value - above * POW10[19]));
        while (end > stop) *--end = '0';
        value = above;
    }
    return digits_before(end, static_cast<uint64_t>(value));
}

void put_int(Output& out, int64_t value) {
    char text[20];
    uint64_t magnitude = static_cast<uint64_t>(value);
    if (value < 0) {
        *out.p++ = '-';
        magnitude = 0 - magnitude;
    }
    char* start = digits_before(text + 20, magnitude);
    put(out, std::string_view(start, static_cast<size_t>(text + 20 - start)));
}

// Plain decimal text, quoted: digits / 10^scale without trailing zeros.
void put_decimal(Output& out, std::string_view digits, int scale, bool negative) {
    auto length = static_cast<int>(digits.size());
    int kept = scale;  // digits after the point
    while (kept > 0 && (scale - kept >= length || digits[static_cast<size_t>(length - 1 - (scale - kept))] == '0')) --kept;
    *out.p++ = '"';
    if (negative) *out.p++ = '-';
    if (length > scale) put(out, digits.substr(0, static_cast<size_t>(length - scale)));
    else *out.p++ = '0';
    if (kept > 0) {
        *out.p++ = '.';
        for (int zeros = std::min(scale - length, kept); zeros > 0; --zeros) *out.p++ = '0';
        auto from = static_cast<size_t>(std::max(length - scale, 0));
        put(out, digits.substr(from, static_cast<size_t>(length - (scale - kept)) - from));
    }
    *out.p++ = '"';
}

template <typename Unsigned>
void put_mantissa(Output& out, Unsigned magnitude, bool negative, int scale) {
    char text[40];
    char* start = digits_before(text + 40, magnitude);
    put_decimal(out, {start, static_cast<size_t>(text + 40 - start)}, scale, negative);
}

void put_price(Output& out, int64_t value, int scale) {
    auto magnitude = static_cast<uint64_t>(value);
    put_mantissa(out, value < 0 ? 0 - magnitude : magnitude, value < 0, scale);
}

// A 128-bit sum as magnitude and sign.
struct Sum {
    u128 magnitude;
    bool negative;

    Sum(int64_t hi, uint64_t lo) : magnitude((static_cast<u128>(static_cast<uint64_t>(hi)) << 64) | lo), negative(hi < 0) {
        if (negative) magnitude = 0 - magnitude;
    }
};

void put_sum(Output& out, Sum sum, int scale) {
    if (sum.magnitude >> 64) put_mantissa(out, sum.magnitude, sum.negative, scale);
    else put_mantissa(out, static_cast<uint64_t>(sum.magnitude), sum.negative, scale);
}

// The four decimals after the integer quotient: remainder * 10^4 / divisor, exactly.
unsigned four_digits(u128 remainder, u128 divisor) {
    if ((divisor >> 114) == 0) return static_cast<unsigned>(remainder * 10000 / divisor);
    // A product could pass 128 bits: ten additions give each digit.
    unsigned value = 0;
    for (int place = 0; place < 4; ++place) {
        unsigned digit = 0;
        u128 total = 0;
        for (int i = 0; i < 10; ++i) {
            total += remainder;  // both below divisor <= 2^127
            if (total >= divisor) {
                total -= divisor;
                ++digit;
            }
        }
        remainder = total;
        value = value * 10 + digit;
    }
    return value;
}

// quote volume / volume truncated toward zero at price_scale + 4 digits; null without volume.
void put_vwap(Output& out, Sum quote, Sum volume, int price_scale) {
    if (volume.magnitude == 0) return put(out, "null");
    char text[44];
    u128 whole = quote.magnitude / volume.magnitude;
    unsigned fraction = four_digits(quote.magnitude - whole * volume.magnitude, volume.magnitude);
    for (int i = 43; i >= 40; --i, fraction /= 10) text[i] = static_cast<char>('0' + fraction % 10);
    char* start = digits_before(text + 40, whole);
    while (start < text + 43 && *start == '0') ++start;
    bool zero = start == text + 43 && *start == '0';
    put_decimal(out, {start, static_cast<size_t>(text + 44 - start)}, price_scale + 4,
                !zero && quote.negative != volume.negative);
}

void put_time(Output& out, int64_t ns, bool as_ns) {
    if (!as_ns) return put_int(out, ns / 1'000'000 - (ns % 1'000'000 < 0));
    *out.p++ = '"';
    put_int(out, ns);
    *out.p++ = '"';
}

void put_id(Output& out, int64_t id, bool text) {
    if (text) *out.p++ = '"';
    put_int(out, id);
    if (text) *out.p++ = '"';
}

void put_prices(Output& out, const Candle& row, int scale) {
    if (row.trades == 0 && row.filled != 1) return put(out, ",\"open\":null,\"high\":null,\"low\":null,\"close\":null");
    put(out, ",\"open\":");
    put_price(out, row.open, scale);
    put(out, ",\"high\":");
    put_price(out, row.high, scale);
    put(out, ",\"low\":");
    put_price(out, row.low, scale);
    put(out, ",\"close\":");
    put_price(out, row.close, scale);
}

void put_volumes(Output& out, const Candle& row, const Format& format) {
    int quote_scale = format.price_scale + format.size_scale;
    put(out, ",\"volume\":");
    put_sum(out, {row.volume_hi, row.volume_lo}, format.size_scale);
    put(out, ",\"quote_volume\":");
    put_sum(out, {row.quote_volume_hi, row.quote_volume_lo}, quote_scale);
    put(out, ",\"taker_buy_volume\":");
    put_sum(out, {row.taker_buy_volume_hi, row.taker_buy_volume_lo}, format.size_scale);
    put(out, ",\"taker_buy_quote_volume\":");
    put_sum(out, {row.taker_buy_quote_volume_hi, row.taker_buy_quote_volume_lo}, quote_scale);
}

void put_candle(Output& out, const Candle& row, const Format& format) {
    put(out, "{\"instrument\":");
    put(out, format.instrument);
    put(out, ",\"tf\":\"");
    put(out, std::string_view(TIMEFRAMES[row.tf]));
    put(out, "\",\"open_time\":");
    put_time(out, row.open_time, format.ns);
    put_prices(out, row, format.price_scale);
    put_volumes(out, row, format);
    put(out, ",\"trades\":");
    put_int(out, row.trades);
    put(out, ",\"first_id\":");
    put_id(out, row.first_id, format.text_ids);
    put(out, ",\"last_id\":");
    put_id(out, row.last_id, format.text_ids);
    put(out, ",\"vwap\":");
    put_vwap(out, {row.quote_volume_hi, row.quote_volume_lo}, {row.volume_hi, row.volume_lo}, format.price_scale);
    put(out, ",\"state\":\"");
    put(out, std::string_view(STATES[row.state]));
    put(out, "\",\"rev\":");
    put_int(out, row.rev);
    put(out, std::string_view(row.complete < 0    ? ",\"complete\":null,\"last_seq\":"
                              : row.complete == 0 ? ",\"complete\":false,\"last_seq\":"
                                                  : ",\"complete\":true,\"last_seq\":"));
    put_int(out, row.last_seq);
    put(out, ",\"pos\":");
    put_int(out, row.pos);
    put(out, ",\"origin\":\"");
    put(out, std::string_view(ORIGINS[row.origin]));
    put(out, "\"");
    if (row.filled != 0) put(out, ",\"filled\":true");
    put(out, "}");
}

void put_trade(Output& out, const TradeColumns& t, size_t i, const Format& format) {
    put(out, "{\"instrument\":");
    put(out, format.instrument);
    put(out, ",\"seq\":");
    if (t.seq == nullptr) put(out, "null");
    else put_int(out, t.seq[i]);
    put(out, ",\"trade_id\":");
    put_id(out, t.trade_id[i], format.text_ids);
    if (t.count[i] > 1 || t.first_id[i] != t.trade_id[i]) {
        put(out, ",\"first_id\":");
        put_id(out, t.first_id[i], format.text_ids);
        put(out, ",\"count\":");
        put_int(out, t.count[i]);
    }
    put(out, ",\"ts_event\":");
    put_time(out, t.ts_event[i], format.ns);
    put(out, ",\"ts_recv\":");
    put_time(out, t.ts_recv[i], format.ns);
    put(out, ",\"price\":");
    put_price(out, t.price[i], format.price_scale);
    put(out, ",\"size\":");
    put_price(out, t.size[i], format.size_scale);
    put(out, std::string_view(t.side[i] > 0   ? ",\"side\":\"buy\"}"
                              : t.side[i] < 0 ? ",\"side\":\"sell\"}"
                                              : ",\"side\":\"unknown\"}"));
}

template <typename PutRow>
void put_all(Output& out, size_t n, const Format& format, PutRow put_row) {
    out.reserve(ROW_BYTES);
    if (!format.lines) *out.p++ = '[';
    for (size_t i = 0; i < n; ++i) {
        out.reserve(ROW_BYTES + format.instrument.size());
        if (!format.lines && i > 0) *out.p++ = ',';
        put_row(i);
        if (format.lines) *out.p++ = '\n';
    }
    if (!format.lines) *out.p++ = ']';
}

}  // namespace

Output::Output(size_t size) : start_(static_cast<char*>(std::malloc(size))) {
    if (start_ == nullptr) throw std::bad_alloc();
    p = start_;
    end_ = start_ + size;
}

Output::~Output() { std::free(start_); }

void Output::reserve(size_t size) {
    if (static_cast<size_t>(end_ - p) >= size) return;
    auto used = static_cast<size_t>(p - start_);
    size_t total = std::max(2 * static_cast<size_t>(end_ - start_), used + size);
    auto grown = static_cast<char*>(std::realloc(start_, total));
    if (grown == nullptr) throw std::bad_alloc();
    start_ = grown;
    p = start_ + used;
    end_ = start_ + total;
}

const char* bad_field(const Candle& row) {
    if (row.tf < 0 || row.tf >= 18) return "tf";
    if (row.state < 0 || row.state > 2) return "state";
    if (row.origin < 0 || row.origin > 1) return "origin";
    return nullptr;
}

void write_candles(Output& out, const Candle* rows, size_t n, const Format& format) {
    out.reserve(n * TYPICAL_ROW);
    put_all(out, n, format, [&](size_t i) { put_candle(out, rows[i], format); });
}

void write_trades(Output& out, const TradeColumns& trades, const Format& format) {
    put_all(out, trades.rows, format, [&](size_t i) { put_trade(out, trades, i, format); });
}

}  // namespace tapewick::codec
