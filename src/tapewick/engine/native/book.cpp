#include "book.hpp"

#include <algorithm>

namespace tapewick {

namespace {

bool fits(std::int64_t value, std::int64_t factor) {
    std::int64_t ignored;
    return !__builtin_mul_overflow(value, factor, &ignored);
}

}  // namespace

std::size_t BookSide::find(std::int64_t key) const {
    // Steps that double, from the best level on; then the usual halving of what they enclose.
    std::size_t high = levels_.size(), low = high, step = 1;
    while (low > 0) {
        low = high > step ? high - step : 0;
        if (levels_[low].key < key) {
            ++low;
            break;
        }
        high = low;
        step *= 2;
    }
    auto at = std::lower_bound(levels_.begin() + static_cast<std::ptrdiff_t>(low),
                               levels_.begin() + static_cast<std::ptrdiff_t>(high), key,
                               [](const PriceLevel& level, std::int64_t k) { return level.key < k; });
    return static_cast<std::size_t>(at - levels_.begin());
}

void BookSide::set(std::int64_t key, std::int64_t size) {
    std::size_t at = find(key);
    auto place = levels_.begin() + static_cast<std::ptrdiff_t>(at);
    bool here = at < levels_.size() && place->key == key;
    if (size == 0) {
        if (here) levels_.erase(place);
    } else if (here) {
        place->size = size;
    } else {
        levels_.insert(place, {key, size});
    }
}

void BookSide::load(std::vector<PriceLevel> levels) {
    std::stable_sort(levels.begin(), levels.end(),
                     [](const PriceLevel& a, const PriceLevel& b) { return a.key < b.key; });
    levels_.clear();
    for (std::size_t i = 0; i < levels.size(); ++i) {
        bool last = i + 1 == levels.size() || levels[i + 1].key != levels[i].key;
        if (last && levels[i].size != 0) levels_.push_back(levels[i]);
    }
}

bool BookSide::rescale(std::int64_t key_factor, std::int64_t size_factor) {
    auto good = [&](const PriceLevel& level) { return fits(level.key, key_factor) && fits(level.size, size_factor); };
    if (!std::all_of(levels_.begin(), levels_.end(), good)) return false;
    for (PriceLevel& level : levels_) {
        level.key *= key_factor;
        level.size *= size_factor;
    }
    return true;
}

}  // namespace tapewick
