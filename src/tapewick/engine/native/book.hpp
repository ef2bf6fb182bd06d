// The price levels of one order book.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace tapewick {

struct PriceLevel {
    std::int64_t key;  // the higher the better: a bid's price, an ask's price negated
    std::int64_t size;
};

// Wraps instead of overflowing: a price is any 64 bits a message held.
inline std::int64_t negated(std::int64_t value) { return static_cast<std::int64_t>(0 - static_cast<std::uint64_t>(value)); }

// One side, sorted with the best level at the back, where nearly all changes happen.
class BookSide {
public:
    // Sets the level at `key`; size 0 removes it, an absent one included.
    void set(std::int64_t key, std::int64_t size);
    // Replaces everything by levels in any order; of repeated keys the last counts.
    void load(std::vector<PriceLevel> levels);
    void clear() { levels_.clear(); }

    std::size_t size() const { return levels_.size(); }
    bool empty() const { return levels_.empty(); }
    const PriceLevel& best() const { return levels_.back(); }
    // The nth best.
    const PriceLevel& operator[](std::size_t n) const { return levels_[levels_.size() - 1 - n]; }
    // Multiplies all keys and sizes; false, and nothing changed, if one would not fit.
    bool rescale(std::int64_t key_factor, std::int64_t size_factor);

private:
    // Where `key` is, or would be.
    std::size_t find(std::int64_t key) const;

    std::vector<PriceLevel> levels_;
};

// Both sides.
struct BookLevels {
    BookSide bids, asks;

    void set_bid(std::int64_t price, std::int64_t size) { bids.set(price, size); }
    void set_ask(std::int64_t price, std::int64_t size) { asks.set(negated(price), size); }
    bool crossed() const { return !bids.empty() && !asks.empty() && bids.best().key >= negated(asks.best().key); }
    void clear() {
        bids.clear();
        asks.clear();
    }
};

}  // namespace tapewick
