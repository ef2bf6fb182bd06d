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

// One side, sorted with the best level at the back, where most changes happen. A removed level stays as
// one of size 0 until there are too many of them: prices come and go, and moving what lies behind costs most.
class BookSide {
public:
    // Sets the level at `key`; size 0 removes it, an absent one included.
    void set(std::int64_t key, std::int64_t size);
    // Replaces everything by levels in any order; of repeated keys the last counts.
    void load(std::vector<PriceLevel> levels);
    void clear();

    std::size_t size() const { return count_; }
    bool empty() const { return count_ == 0; }
    const PriceLevel& best() const { return levels_.back(); }
    // The `n` best levels (0: all) by `take(level)`, best first.
    template <class Take>
    void each(std::size_t n, Take&& take) const {
        std::size_t left = n == 0 || n > count_ ? count_ : n;
        for (auto level = levels_.rbegin(); left > 0; ++level) {
            if (level->size == 0) continue;
            take(*level);
            --left;
        }
    }
    // Multiplies all keys and sizes; false, and nothing changed, if one would not fit.
    bool rescale(std::int64_t key_factor, std::int64_t size_factor);

private:
    // Where `key` is, or would be; searched from where the last change was.
    std::size_t find(std::int64_t key) const;
    // Drops removed levels: those at the back, which must be the best, and all if they outnumber the others.
    void tidy();
    void drop_removed();

    std::vector<PriceLevel> levels_;
    std::size_t count_ = 0;  // levels that are not removed
    std::size_t near_ = 0;   // index of the last change
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
