#include "codec_number.hpp"

#include <algorithm>

namespace tapewick::codec {

namespace {

// One to four digits with an optional sign, as decimals.py allows.
bool parse_exponent(std::string_view text, int& out) {
    bool negative = !text.empty() && text[0] == '-';
    if (!text.empty() && (text[0] == '-' || text[0] == '+')) text.remove_prefix(1);
    if (text.empty() || text.size() > 4 || !std::all_of(text.begin(), text.end(), is_digit)) return false;
    out = 0;
    for (char c : text) out = out * 10 + (c - '0');
    if (negative) out = -out;
    return true;
}

// Collects significant digits, holding back zeros until a non-zero digit follows.
struct Collector {
    u128 mantissa = 0;
    int64_t digits = 0;   // significant digits in mantissa
    int64_t zeros = 0;    // zeros seen since the last non-zero digit
    bool fits = true;

    void add(char c) {
        if (c == '0') {
            zeros += digits > 0;
            return;
        }
        digits += zeros + 1;
        fits = fits && digits <= MAX_DIGITS;
        if (!fits) return;
        for (; zeros > 0; --zeros) mantissa *= 10;
        mantissa = mantissa * 10 + static_cast<unsigned>(c - '0');
    }
};

}  // namespace

bool parse_decimal(std::string_view text, Decimal& out) {
    out = {};
    size_t i = 0;
    if (i < text.size() && (text[i] == '+' || text[i] == '-')) out.negative = text[i++] == '-';
    Collector all;
    int64_t whole = 0, fraction = 0, exponent = 0;
    for (; i < text.size() && is_digit(text[i]); ++i, ++whole) all.add(text[i]);
    if (i < text.size() && text[i] == '.')
        for (++i; i < text.size() && is_digit(text[i]); ++i, ++fraction) all.add(text[i]);
    if (whole + fraction == 0) return false;
    if (i < text.size()) {
        int power = 0;
        if ((text[i] != 'e' && text[i] != 'E') || !parse_exponent(text.substr(i + 1), power)) return false;
        exponent = power;
    }
    if (all.digits == 0) {
        out = {};
        return true;
    }
    int64_t scale = fraction - exponent - all.zeros;
    int64_t pad = scale < 0 ? -scale : 0;
    if (!all.fits || all.digits + pad > MAX_DIGITS || scale > MAX_DIGITS) return false;
    out.mantissa = all.mantissa;
    for (; pad > 0; --pad) out.mantissa *= 10;
    out.scale = static_cast<int>(std::max<int64_t>(scale, 0));
    return true;
}

const char* scan_last_decimal(const char* p, const char* end, int wide, Decimal& out) {
    if (p == end || *p++ != '.') return nullptr;
    int digits = 0;
    for (; p < end && is_digit(*p); ++p, ++digits) {
        if (wide + digits == 18) return nullptr;
        // Zeros count only once another digit follows them.
        if (*p == '0') continue;
        out.mantissa = out.mantissa * POW10[digits + 1 - out.scale] + static_cast<unsigned>(*p - '0');
        out.scale = digits + 1;
    }
    return digits > 0 && p < end && *p == '"' ? p : nullptr;
}

int fit_scale(int wanted, const Decimal& value) {
    int scale = std::max(wanted, value.scale);
    auto roomy = [&](int at) {
        int up = at - value.scale;
        return value.mantissa == 0 || (up <= 18 && value.mantissa <= static_cast<u128>(INT64_TOP / 1000) / POW10[up]);
    };
    while (scale > value.scale && !roomy(scale)) --scale;
    return scale;
}

}  // namespace tapewick::codec
