// A column of signed integers somewhere in memory: any stride, any alignment, 8, 4 or 1 bytes wide.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace tapewick {

struct Column {
    const char* data = nullptr;
    std::ptrdiff_t stride = 0;
    std::size_t length = 0;
    int width = 8;

    // The value at `i`; `W` must equal `width`. memcpy because views of network bytes are unaligned.
    template <class W>
    std::int64_t get(std::size_t i) const {
        W value;
        std::memcpy(&value, data + static_cast<std::ptrdiff_t>(i) * stride, sizeof value);
        return value;
    }

    std::int64_t any(std::size_t i) const {
        return width == 8 ? get<std::int64_t>(i) : width == 4 ? get<std::int32_t>(i) : get<std::int8_t>(i);
    }
};

}  // namespace tapewick
