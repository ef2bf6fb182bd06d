// Decimal text to integers, exactly: the C++ twin of tapewick/decimals.py.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>
#include <string_view>

namespace tapewick::codec {

static_assert(std::endian::native == std::endian::little, "the eight-digit scan and the column layout are little-endian");

using u128 = unsigned __int128;

inline constexpr int64_t INT64_TOP = 0x7fffffffffffffff;
inline constexpr int MAX_DIGITS = 38;  // what 128-bit arithmetic holds

inline constexpr uint64_t POW10[20] = {
    1ull, 10ull, 100ull, 1000ull, 10000ull, 100000ull, 1000000ull, 10000000ull, 100000000ull, 1000000000ull,
    10000000000ull, 100000000000ull, 1000000000000ull, 10000000000000ull, 100000000000000ull, 1000000000000000ull,
    10000000000000000ull, 100000000000000000ull, 1000000000000000000ull, 10000000000000000000ull};

inline bool is_digit(char c) { return static_cast<unsigned char>(c - '0') < 10; }

// mantissa / 10^scale with trailing zeros removed; scale in 0..38.
struct Decimal {
    u128 mantissa = 0;
    int scale = 0;
    bool negative = false;
};

// Up to eight decimal digits read at once.
struct Digits {
    uint64_t word;  // digit values, first digit in the lowest byte, zero above `count`
    int count;      // how many of the eight bytes are leading digits
};

// `p` must have eight readable bytes.
inline Digits load_digits(const char* p) {
    uint64_t word;
    std::memcpy(&word, p, 8);
    word ^= 0x3030303030303030ull;
    // The high bit of a byte is set when it is above 9 (or was above 127): not a digit.
    uint64_t wrong = (((word & 0x7f7f7f7f7f7f7f7full) + 0x7676767676767676ull) | word) & 0x8080808080808080ull;
    int count = wrong ? std::countr_zero(wrong) >> 3 : 8;
    if (count < 8) word &= (1ull << (8 * count)) - 1;
    return {word, count};
}

// Value of eight digit values, the first (lowest byte) most significant.
inline uint64_t fold_digits(uint64_t word) {
    word = word * 10 + (word >> 8);
    return (((word & 0x000000ff000000ffull) * 0x000f424000000064ull) +
            (((word >> 16) & 0x000000ff000000ffull) * 0x0000271000000001ull)) >>
           32;
}

// Digits at `p` (at most 18, no sign) into `value`; the number of digits, 0 if none or too many.
inline int scan_unsigned(const char* p, const char* end, uint64_t& value) {
    value = 0;
    int total = 0;
    while (end - p >= 8) {
        Digits d = load_digits(p);
        if (d.count == 0) return total;
        if ((total += d.count) > 18) return 0;
        value = value * POW10[d.count] + fold_digits(d.word << (8 * (8 - d.count)));
        p += d.count;
        if (d.count < 8) return total;
    }
    for (; p < end && is_digit(*p); ++p) {
        if (++total > 18) return 0;
        value = value * 10 + static_cast<uint64_t>(*p - '0');
    }
    return total;
}

// What scan_decimal does where fewer than eight bytes may follow the point and the `wide` digits before it
// are read: the closing quote, null for anything else. By value: `p` then stays in a register.
const char* scan_last_decimal(const char* p, const char* end, int wide, Decimal& out);

// The common form `digits[.digits]"` with at most 18 digits: advances `p` to the closing quote.
// False (and `p` undefined) for anything else, which parse_decimal then decides.
inline bool scan_decimal(const char*& p, const char* end, Decimal& out) {
    uint64_t whole = 0;
    int wide = scan_unsigned(p, end, whole);
    if (wide == 0) return false;
    p += wide;
    out = {whole, 0, false};
    if (p < end && *p == '"') return true;
    if (end - p < 10) return (p = scan_last_decimal(p, end, wide, out)) != nullptr;
    if (*p != '.') return false;
    Digits d = load_digits(++p);
    p += d.count;
    if (d.count == 0 || *p != '"' || wide + d.count > 18) return false;
    if (d.word == 0) return true;
    // Trailing zero digits are zero bytes at the top: shifting them out divides by their power of ten.
    int scale = 8 - (std::countl_zero(d.word) >> 3);
    out.mantissa = whole * POW10[scale] + fold_digits(d.word << (8 * (8 - scale)));
    out.scale = scale;
    return true;
}

// Any text decimals.split accepts; false where it raises BadDecimal.
bool parse_decimal(std::string_view text, Decimal& out);

// `value` at `scale` >= value.scale as an int64; false when it does not fit.
inline bool at_scale(const Decimal& value, int scale, int64_t& out) {
    int up = scale - value.scale;
    if (value.mantissa == 0) {
        out = 0;
        return true;
    }
    if (up > 18 || value.mantissa > static_cast<u128>(INT64_TOP) / POW10[up]) return false;
    auto scaled = static_cast<int64_t>(static_cast<uint64_t>(value.mantissa) * POW10[up]);
    out = value.negative ? -scaled : scaled;
    return true;
}

// decimals.fit_scale: `wanted` if that leaves a factor 1000 of head-room, else the largest that does.
int fit_scale(int wanted, const Decimal& value);

}  // namespace tapewick::codec
