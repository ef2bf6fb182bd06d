#include "book.hpp"

#include <algorithm>

namespace tapewick {

namespace {

// Whether a product and its negative both have 64 bits: an ask's key is its price negated.
bool fits(std::int64_t value, std::int64_t factor) {
    std::int64_t product;
    return !__builtin_mul_overflow(value, factor, &product) && product != INT64_MIN;
}

}  // namespace

std::size_t BookSide::find(std::int64_t key) const {
    auto less = [](const PriceLevel& level, std::int64_t k) { return level.key < k; };
    std::size_t low = 0, high = levels_.size();
    // Steps that double, up or down, until the key is enclosed; then the usual halving.
    if (near_ < high && levels_[near_].key < key) {
        low = near_ + 1;
        for (std::size_t step = 1; low + step < high; step *= 2) {
            if (levels_[low + step].key >= key) {
                high = low + step;
                break;
            }
            low += step + 1;
        }
    } else {
        high = std::min(near_, high);
        for (std::size_t step = 1; high >= step; step *= 2) {
            if (levels_[high - step].key < key) {
                low = high - step + 1;
                break;
            }
            high -= step;
        }
    }
    auto from = levels_.begin();
    auto at = std::lower_bound(from + static_cast<std::ptrdiff_t>(low), from + static_cast<std::ptrdiff_t>(high), key, less);
    return static_cast<std::size_t>(at - from);
}

void BookSide::set(std::int64_t key, std::int64_t size) {
    std::size_t at = near_ = find(key);
    if (at == levels_.size() || levels_[at].key != key) {
        if (size == 0) return;
        // A removed neighbour makes room where it is.
        if (at < levels_.size() && levels_[at].size == 0) levels_[at] = {key, size};
        else levels_.insert(levels_.begin() + static_cast<std::ptrdiff_t>(at), {key, size});
        ++count_;
        return;
    }
    count_ += static_cast<std::size_t>(size != 0) - static_cast<std::size_t>(levels_[at].size != 0);
    levels_[at].size = size;
    if (size == 0) tidy();
}

void BookSide::tidy() {
    while (!levels_.empty() && levels_.back().size == 0) levels_.pop_back();
    if (levels_.size() > 2 * count_ + 64) drop_removed();
}

void BookSide::drop_removed() {
    std::erase_if(levels_, [](const PriceLevel& level) { return level.size == 0; });
    near_ = levels_.size();
}

void BookSide::clear() {
    levels_.clear();
    count_ = near_ = 0;
}

void BookSide::load(std::vector<PriceLevel> levels) {
    std::stable_sort(levels.begin(), levels.end(),
                     [](const PriceLevel& a, const PriceLevel& b) { return a.key < b.key; });
    levels_.clear();
    for (std::size_t i = 0; i < levels.size(); ++i) {
        bool last = i + 1 == levels.size() || levels[i + 1].key != levels[i].key;
        if (last && levels[i].size != 0) levels_.push_back(levels[i]);
    }
    count_ = near_ = levels_.size();
}

bool BookSide::rescale(std::int64_t key_factor, std::int64_t size_factor) {
    drop_removed();  // of no account, though their keys might not fit
    auto good = [&](const PriceLevel& level) { return fits(level.key, key_factor) && fits(level.size, size_factor); };
    if (!std::all_of(levels_.begin(), levels_.end(), good)) return false;
    for (PriceLevel& level : levels_) {
        level.key *= key_factor;
        level.size *= size_factor;
    }
    return true;
}

}  // namespace tapewick
