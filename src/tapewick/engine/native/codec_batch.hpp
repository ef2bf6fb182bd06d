// Trades of one decode call, sorted into columns per (symbol, kind); symbols and scales that
// the decoder remembers between calls.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "codec_book.hpp"
#include "codec_frame.hpp"

namespace tapewick::codec {

// What is remembered of a symbol; the fields after `known` belong to the batch numbered `batch`.
struct Symbol {
    std::string name;
    int price_scale, size_scale;
    bool known;  // scales were set or learned, not merely the defaults
    BookScales depth, quote;
    uint64_t batch = 0;
    int group[2] = {-1, -1};
    int depth_rows = -1, quote_rows = -1;
    int64_t top_price = 0, top_size = 0;  // largest magnitudes so far, at the current scales
};

struct NameHash {
    using is_transparent = void;
    size_t operator()(std::string_view text) const { return std::hash<std::string_view>{}(text); }
};

// Symbols live in a deque so that pointers to them stay valid.
class Symbols {
public:
    Symbols(int price_scale, int size_scale) : price_scale_(price_scale), size_scale_(size_scale) {}

    Symbol& at(std::string_view name);
    void set_scale(std::string_view name, int price_scale, int size_scale);
    uint64_t next_batch() { return ++batch_; }

private:
    int price_scale_, size_scale_;
    uint64_t batch_ = 0;
    std::deque<Symbol> all_;
    std::unordered_map<std::string_view, Symbol*, NameHash, std::equal_to<>> index_;
    Symbol* last_ = nullptr;
};

// One trade as it was accepted: mantissas at the scales of that moment.
struct Row {
    int64_t id, first, ts, recv, price, size;
    int32_t count, group;
    int8_t side, price_scale, size_scale;
};

struct GroupInfo {
    Symbol* symbol;
    std::string name;
    Kind kind;
    bool futures = false;
    int price_scale = 0, size_scale = 0;
    size_t start = 0, rows = 0;              // rows of the columns
    size_t voids_start = 0, voids = 0;       // of the void ids
};

// All columns of a batch in one block: six of int64, then void ids, then int32 counts, then sides.
struct Columns {
    enum Column { trade_id, first_id, ts_event, ts_recv, price, size };
    static constexpr size_t WIDE = 6;

    size_t rows = 0, voids = 0;
    std::unique_ptr<int64_t[]> block;

    int64_t* wide(size_t column) { return block.get() + column * rows; }
    int64_t* void_ids() { return block.get() + WIDE * rows; }
    int32_t* count() { return reinterpret_cast<int32_t*>(void_ids() + voids); }
    int8_t* side() { return reinterpret_cast<int8_t*>(count() + rows); }
};

// A frame kept as it came, for readers that are in no hurry.
struct Rest {
    Kind kind;
    std::string stream, body;
    int64_t recv;
};

class Batch {
public:
    // With `book` to read them into, frames of order books are kept too.
    Batch(Symbols& symbols, Book* book) : symbols_(symbols), number_(symbols.next_batch()), book_(book) {}

    // Reads one frame and counts or keeps it.
    void take(std::string_view frame, int64_t recv);

    // Reads `<recv ns> <frame>` lines.
    void take_lines(std::string_view block);

    // Settles the groups' final scales and fills the columns.
    std::shared_ptr<Columns> finish();

    std::vector<GroupInfo> groups;
    std::vector<std::shared_ptr<BookRows>> depth, quotes;
    std::vector<Rest> rest;
    int64_t last_recv = 0;
    uint64_t others[KINDS] = {};
    uint64_t rejects[8] = {};
    std::unordered_map<std::string, uint64_t> unknown;

private:
    void take_line(std::string_view line);
    [[gnu::noinline]] void take_other(int64_t recv);  // apart, to keep the way of a trade short
    void keep(int64_t recv);
    void keep_book(int64_t recv, bool quote);
    void enter(Symbol& symbol);
    int group_of(Symbol& symbol);
    void reject(Reject reason) { ++rejects[static_cast<int>(reason)]; }

    Symbols& symbols_;
    uint64_t number_;
    Book* book_;
    Trade trade_;
    Verdict verdict_;
    std::vector<Row> rows_;
    std::vector<std::pair<int, int64_t>> voids_;  // group, id
};

}  // namespace tapewick::codec
