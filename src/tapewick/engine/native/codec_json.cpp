#include "codec_json.hpp"

#include <cstdint>
#include <cstring>

namespace tapewick::codec {

namespace {

// A cursor over [p, end) whose steps return false at the first violation.
struct Cursor {
    const char* p;
    const char* end;

    bool at(char c) const { return p < end && *p == c; }

    void space() {
        while (p < end && (*p == ' ' || *p == '\n' || *p == '\t' || *p == '\r')) ++p;
    }

    bool take(char c) {
        if (!at(c)) return false;
        ++p;
        return true;
    }

    bool literal(std::string_view word) {
        if (static_cast<size_t>(end - p) < word.size() || std::memcmp(p, word.data(), word.size()) != 0) return false;
        p += word.size();
        return true;
    }

    bool digits() {
        const char* start = p;
        while (p < end && is_digit(*p)) ++p;
        return p > start;
    }

    bool number() {
        take('-');
        if (!take('0') && !digits()) return false;
        if (take('.') && !digits()) return false;
        if (at('e') || at('E')) {
            ++p;
            if (!take('+')) take('-');
            return digits();
        }
        return true;
    }

    bool hex4(uint32_t& out) {
        if (end - p < 4) return false;
        out = 0;
        for (int i = 0; i < 4; ++i, ++p) {
            char lower = static_cast<char>(*p | 0x20);
            if (is_digit(*p)) out = out * 16 + static_cast<uint32_t>(*p - '0');
            else if (lower >= 'a' && lower <= 'f') out = out * 16 + static_cast<uint32_t>(lower - 'a' + 10);
            else return false;
        }
        return true;
    }

    // After "\u". A high surrogate must be followed at once by an escaped low one.
    bool unicode(uint32_t& out) {
        if (!hex4(out)) return false;
        if (out < 0xD800 || out > 0xDFFF) return true;
        uint32_t low = 0;
        if (out > 0xDBFF || !take('\\') || !take('u') || !hex4(low) || low < 0xDC00 || low > 0xDFFF) return false;
        out = 0x10000 + ((out - 0xD800) << 10) + (low - 0xDC00);
        return true;
    }

    bool string() {
        if (!take('"')) return false;
        while (p < end) {
            auto c = static_cast<unsigned char>(*p++);
            if (c == '"') return true;
            if (c < 0x20) return false;
            if (c != '\\') continue;
            if (p == end) return false;
            char escape = *p++;
            uint32_t code = 0;
            if (escape == 'u' ? !unicode(code) : std::strchr("\"\\/bfnrt", escape) == nullptr || escape == 0) return false;
        }
        return false;
    }

    // A key, a colon and the white space around them.
    bool member_key(std::string_view& raw) {
        space();
        const char* start = p;
        if (!string()) return false;
        raw = {start, static_cast<size_t>(p - start)};
        space();
        if (!take(':')) return false;
        space();
        return true;
    }

    bool container(int depth) {
        bool object = *p == '{';
        char close = object ? '}' : ']';
        if (depth >= MAX_DEPTH) return false;
        ++p;
        space();
        if (take(close)) return true;
        for (Token ignored;;) {
            std::string_view key;
            if (object && !member_key(key)) return false;
            if (!value(ignored, depth + 1)) return false;
            if (take(close)) return true;
            if (!take(',')) return false;
        }
    }

    // A value with the white space around it.
    bool value(Token& out, int depth) {
        space();
        if (p == end) return false;
        const char* start = p;
        bool good = false;
        switch (*p) {
            case '{': out.type = Json::object; good = container(depth); break;
            case '[': out.type = Json::array; good = container(depth); break;
            case '"': out.type = Json::string; good = string(); break;
            case 't': out.type = Json::boolean; good = literal("true"); break;
            case 'f': out.type = Json::boolean; good = literal("false"); break;
            case 'n': out.type = Json::null; good = literal("null"); break;
            default: out.type = Json::number; good = number(); break;
        }
        out.text = {start, static_cast<size_t>(p - start)};
        space();
        return good;
    }
};

void append_utf8(std::string& out, uint32_t code) {
    auto put = [&](uint32_t byte) { out.push_back(static_cast<char>(byte)); };
    if (code < 0x80) return put(code);
    if (code < 0x800) {
        put(0xC0 | (code >> 6));
    } else {
        if (code < 0x10000) {
            put(0xE0 | (code >> 12));
        } else {
            put(0xF0 | (code >> 18));
            put(0x80 | ((code >> 12) & 0x3F));
        }
        put(0x80 | ((code >> 6) & 0x3F));
    }
    put(0x80 | (code & 0x3F));
}

char escaped_char(char escape) {
    switch (escape) {
        case 'b': return '\b';
        case 'f': return '\f';
        case 'n': return '\n';
        case 'r': return '\r';
        case 't': return '\t';
        default: return escape;
    }
}

std::string_view unescape_raw(std::string_view quoted, std::string& scratch) {
    std::string_view body = quoted.substr(1, quoted.size() - 2);
    if (body.find('\\') == std::string_view::npos) return body;
    scratch.clear();
    for (Cursor at{body.data(), body.data() + body.size()}; at.p < at.end;) {
        char c = *at.p++;
        if (c != '\\') {
            scratch.push_back(c);
            continue;
        }
        char escape = *at.p++;
        uint32_t code = 0;
        if (escape == 'u' && at.unicode(code)) append_utf8(scratch, code);
        else scratch.push_back(escaped_char(escape));
    }
    return scratch;
}

}  // namespace

bool valid_utf8(std::string_view text) {
    auto p = reinterpret_cast<const unsigned char*>(text.data());
    const unsigned char* end = p + text.size();
    while (p < end) {
        for (uint64_t word; end - p >= 8; p += 8) {
            std::memcpy(&word, p, 8);
            if (word & 0x8080808080808080ull) break;
        }
        if (p == end) break;
        unsigned char lead = *p++;
        if (lead < 0x80) continue;
        int more = lead >= 0xF0 ? 3 : lead >= 0xE0 ? 2 : 1;
        if (lead < 0xC2 || lead > 0xF4 || end - p < more) return false;
        // The second byte's range shuts out overlong forms, surrogates and values above U+10FFFF.
        unsigned char least = lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80;
        unsigned char most = lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;
        if (*p < least || *p > most) return false;
        for (int i = 1; i < more; ++i)
            if ((p[i] & 0xC0) != 0x80) return false;
        p += more;
    }
    return true;
}

Token parse_document(std::string_view text) {
    Cursor at{text.data(), text.data() + text.size()};
    Token out;
    if (!at.value(out, 0) || at.p != at.end) return {};
    return out;
}

std::string_view unescape(const Token& string, std::string& scratch) { return unescape_raw(string.text, scratch); }

bool is_integer(const Token& token) {
    return token.type == Json::number && token.text.find_first_of(".eE") == std::string_view::npos;
}

bool is_number(const Token& token) { return token.type == Json::number || token.type == Json::string; }

bool to_int64(const Token& token, int64_t& out) {
    std::string_view text = token.text;
    bool negative = text[0] == '-';
    if (negative) text.remove_prefix(1);
    if (text.size() > 19) return false;
    uint64_t value = 0;
    for (char c : text) value = value * 10 + static_cast<uint64_t>(c - '0');
    if (value > static_cast<uint64_t>(INT64_TOP) + (negative ? 1 : 0)) return false;
    out = static_cast<int64_t>(negative ? 0 - value : value);
    return true;
}

bool to_decimal(const Token& token, Decimal& out) {
    std::string scratch;
    return parse_decimal(token.type == Json::string ? unescape(token, scratch) : token.text, out);
}

Members::Members(const Token& object) : p_(object.text.data() + 1), end_(object.text.data() + object.text.size()) {}

bool Members::next() {
    Cursor at{p_, end_};
    at.space();
    at.take(',');
    at.space();
    std::string_view raw;
    if (at.at('}') || !at.member_key(raw)) return false;
    key_ = unescape_raw(raw, scratch_);
    if (!at.value(value_, 0)) return false;
    p_ = at.p;
    return true;
}

Elements::Elements(const Token& array) : p_(array.text.data() + 1), end_(array.text.data() + array.text.size()) {}

bool Elements::next() {
    Cursor at{p_, end_};
    at.space();
    at.take(',');
    at.space();
    if (at.at(']') || !at.value(value_, 0)) return false;
    p_ = at.p;
    return true;
}

}  // namespace tapewick::codec
