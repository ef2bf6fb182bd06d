// Steps of a hand scan over compact JSON: no white space, no escapes, ASCII only. A step that
// returns false says nothing of the frame: the generic walk then decides.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string_view>

#include "codec_number.hpp"

namespace tapewick::codec {

struct Scanner {
    const char* p;
    const char* end;

    bool starts(std::string_view with) const {
        return static_cast<size_t>(end - p) >= with.size() && std::memcmp(p, with.data(), with.size()) == 0;
    }

    bool take(char c) {
        if (p == end || *p != c) return false;
        ++p;
        return true;
    }

    bool integer(int64_t& out) {
        uint64_t value;
        int digits = scan_unsigned(p, end, value);
        if (digits == 0 || (digits > 1 && *p == '0')) return false;
        p += digits;
        out = static_cast<int64_t>(value);
        return true;
    }

    bool string(std::string_view& out) {
        if (p == end || *p != '"') return false;
        const char* start = ++p;
        while (p < end && *p != '"') {
            if (*p < 0x20 || *p > 0x7e || *p == '\\') return false;
            ++p;
        }
        if (p == end) return false;
        out = {start, static_cast<size_t>(p++ - start)};
        return true;
    }

    bool decimal(Decimal& out) {
        if (p == end || *p != '"') return false;
        ++p;
        if (!scan_decimal(p, end, out)) return false;
        ++p;
        return true;
    }

    bool boolean(bool& out) {
        if (starts("true")) {
            p += 4;
            return out = true;
        }
        if (!starts("false")) return false;
        p += 5;
        out = false;
        return true;
    }
};

}  // namespace tapewick::codec
