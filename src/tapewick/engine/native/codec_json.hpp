// A strict JSON walk (RFC 8259) that keeps raw tokens: numbers stay text, nothing is copied
// but strings that carry escapes.
#pragma once

#include <string>
#include <string_view>

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

}  // namespace tapewick::codec
