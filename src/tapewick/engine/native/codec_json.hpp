// A strict JSON walk (RFC 8259) that keeps raw tokens: numbers stay text, nothing is copied
// but strings that carry escapes.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "codec_number.hpp"

namespace tapewick::codec {

inline constexpr int MAX_DEPTH = 64;  // nested containers; deeper input counts as malformed

enum class Json : char { missing, object, array, string, number, boolean, null };

// One value: its type and its raw text, quotes of a string included.
struct Token {
    Json type = Json::missing;
    std::string_view text;

    bool present() const { return type != Json::missing; }
    bool is_true() const { return text == "true"; }
};

// Whether `text` is UTF-8 without surrogates, overlong forms or values above U+10FFFF.
bool valid_utf8(std::string_view text);

// The one value `text` consists of, validated to its last byte; type `missing` if malformed.
Token parse_document(std::string_view text);

// The content of a string token with escapes resolved; `scratch` holds it if there are any.
std::string_view unescape(const Token& string, std::string& scratch);

// Whether a token is a number without fraction or exponent; whether it may be a decimal.
bool is_integer(const Token& token);
bool is_number(const Token& token);

// The value of an integer token; false beyond 64 bits.
bool to_int64(const Token& token, int64_t& out);

// The value of a number, or of a string that holds one.
bool to_decimal(const Token& token, Decimal& out);

// Walks the members of a validated object: `take(key, token)`, in order, duplicates included.
class Members {
public:
    explicit Members(const Token& object);
    bool next();
    std::string_view key() const { return key_; }
    const Token& value() const { return value_; }

private:
    const char* p_;
    const char* end_;
    std::string_view key_;
    std::string scratch_;
    Token value_;
};

// Walks the elements of a validated array.
class Elements {
public:
    explicit Elements(const Token& array);
    bool next();
    const Token& value() const { return value_; }

private:
    const char* p_;
    const char* end_;
    Token value_;
};

}  // namespace tapewick::codec
