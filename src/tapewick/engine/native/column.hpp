// Columns of signed integers somewhere in memory: any stride, any alignment, 8, 4 or 1 bytes wide.
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

    template <class W>
    bool packed() const {
        return width == sizeof(W) && stride == sizeof(W);
    }

    // The value at `i` of a packed column of W. memcpy because views of network bytes are unaligned.
    template <class W>
    W get(std::size_t i) const {
        W value;
        std::memcpy(&value, data + i * sizeof(W), sizeof value);
        return value;
    }

    // The value at `i`, whatever the layout.
    std::int64_t any(std::size_t i) const {
        const Column one{data + static_cast<std::ptrdiff_t>(i) * stride, 0, 1, width};
        if (width == 8) return one.get<std::int64_t>(0);
        return width == 4 ? one.get<std::int32_t>(0) : one.get<std::int8_t>(0);
    }
};

}  // namespace tapewick
