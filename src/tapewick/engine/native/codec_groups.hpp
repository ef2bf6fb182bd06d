// What Python sees of order-book frames: DepthGroup, QuoteGroup and Rest.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <array>
#include <memory>
#include <string>

#include "codec_batch.hpp"
#include "codec_book.hpp"

namespace tapewick::codec {

[[noreturn]] void raise(const char* kind, const std::string& message);

// One symbol's frames of a decode call; arrays over its columns are made when first read.
struct BookGroup {
    static constexpr int PRICE = BookRows::COLUMNS, SIZE = PRICE + 1, LEVELS = SIZE + 1;

    std::shared_ptr<BookRows> rows;
    nanobind::object owner;  // keeps `rows` for the arrays
    std::array<nanobind::object, LEVELS + 4> made;

    // An array over every `stride`th value of a column, from `offset` on.
    nanobind::object array(int slot, std::vector<int64_t>& column, size_t offset = 0, int64_t stride = 1);
};

struct DepthGroup : BookGroup {};
struct QuoteGroup : BookGroup {};

}  // namespace tapewick::codec

void bind_groups(nanobind::module_& m);
