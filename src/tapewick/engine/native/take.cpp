// The delta cascade and the life cycle of rows: what `take` and `live` do.
#include <algorithm>

#include "core.hpp"

namespace tapewick {

namespace {

constexpr std::size_t KEPT_DELTAS = 256;  // 48 kB: what a live instrument may hold on to

// Deltas of `parent` from those of its child, both ascending.
void roll_up(const std::vector<Row>& children, int parent, std::vector<Row>& out) {
    out.clear();
    i64 end = NO_TIME;
    for (const Row& child : children) {
        if (child.open_time >= end) {
            const Span span = bucket(parent, child.open_time);
            out.emplace_back(child).open_time = span.open;
            end = span.end;
        } else {
            out.back().merge(child);
        }
    }
}

}  // namespace

// A large buffer the thread's last bulk batch left: fresh pages would cost more than the folding.
TapeCore::Deltas& TapeCore::spare() {
    static thread_local Deltas buffer;
    return buffer;
}

void TapeCore::take(Taken& out) {
    gather();
    // One scratch per thread, not per instrument: it stays in the processor's cache.
    static thread_local std::array<Deltas, FRAMES> scratch;
    if (!deltas_.empty()) {
        scratch[1].swap(deltas_);
        for (const auto [child, parent] : TREE)
            roll_up(scratch[static_cast<std::size_t>(child)], parent, scratch[static_cast<std::size_t>(parent)]);
        for (int tf = 1; tf < FRAMES; ++tf)
            frames_[static_cast<std::size_t>(tf)].merge(scratch[static_cast<std::size_t>(tf)], blank(tf));
        scratch[1].swap(deltas_);
        std::size_t merged = 0;
        for (const Deltas& deltas : scratch) merged += deltas.size();
        out.rows.reserve(merged + deltas_.size() + 2 * FRAMES);  // and about as many that end with them
        deltas_.clear();
        if (deltas_.capacity() > KEPT_DELTAS) {
            if (deltas_.capacity() > spare().capacity()) spare().swap(deltas_);
            Deltas().swap(deltas_);
        }
        current_ = nullptr;
        current_span_ = {0, 0};
    }
    const i64 settled_until = std::min(minus(taken_watermark_, grace), ledger_.unaffected_until());
    for (int tf = 0; tf < FRAMES; ++tf) settle_frame(tf, settled_until, out.rows);
    if (!out.rows.empty()) ++pos;
    taken_watermark_ = watermark;
    for (int tf = 0; tf < FRAMES; ++tf) prune(tf);
    out.holes_changed = ledger_.holes_changed();
    ledger_.drain(out.put, out.gone);
}

// Watermark at which `row` changes state by itself; INT64_MAX: never.
i64 TapeCore::due(const Row& row, i64 end) const {
    if (row.state == OPEN) return end;
    return row.state == CLOSED && row.complete == 1 ? end + grace : INT64_MAX;
}

// Appends every row that changed. Rows that ended by `settled_until` and were neither loaded nor merged into
// cannot have changed: neither the watermark nor the ledger moved anything there since the last take.
void TapeCore::settle_frame(int tf, i64 settled_until, std::vector<Row>& out) {
    Frame& frame = frames_[static_cast<std::size_t>(tf)];
    const auto rows = frame.rows();
    const i64 length = TIMEFRAMES[static_cast<std::size_t>(tf)].length;
    std::size_t i = settled_until == NO_TIME ? 0 : frame.at(minus(settled_until, length));
    if (frame.look_from != INT64_MAX) i = std::min(i, frame.at(frame.look_from));
    frame.look_from = INT64_MAX;
    frame.due_at = INT64_MAX;
    for (; i < rows.size(); ++i) {
        Row& row = rows[i];
        const i64 end = bucket_end(tf, row.open_time);
        const Change change = settle(row, end);
        frame.due_at = std::min(frame.due_at, due(row, end));
        if (change == UNCHANGED) continue;
        row.pos = pos + 1;
        row.changed = 0;
        Row& written = out.emplace_back(row);
        written.change = change;
        if (change != CHANGE_REVISED) written.reason = PROOF;
        row.reason = PROOF;
    }
}

// Moves the row along open → closed → final; how it changed.
Change TapeCore::settle(Row& row, i64 end) const {
    if (row.state == OPEN && end > watermark) return row.changed ? CHANGE_OPEN : UNCHANGED;
    const std::int8_t complete = contiguous ? ledger_.proves(row.open_time, end) : -1;
    const std::int8_t state = complete == 1 && end + grace <= watermark ? FINAL : CLOSED;
    if (row.state == OPEN) {
        row.state = state;
        row.complete = complete;
        return CHANGE_CLOSED;
    }
    if (!row.changed && state == row.state && complete == row.complete) return UNCHANGED;
    const bool only_final = !row.changed && complete == row.complete;
    row.state = state;
    row.complete = complete;
    ++row.rev;
    return only_final ? CHANGE_FINAL : CHANGE_REVISED;
}

void TapeCore::prune(int tf) {
    Frame& frame = frames_[static_cast<std::size_t>(tf)];
    const i64 cutoff = minus(watermark, keep), tail = ledger_.tail_ts();
    const auto rows = frame.rows();
    std::size_t old = 0;
    while (old < rows.size() && bucket_end(tf, rows[old].open_time) <= cutoff) ++old;
    if (!old) return;
    frame.drop(old, [&](const Row& row) {
        if (row.state != CLOSED) return row.state == OPEN;
        return row.complete == 1 || (row.complete == 0 && bucket_end(tf, row.open_time) + lateness > tail);
    });
}

std::vector<Row> TapeCore::live() {
    std::vector<Row> out;
    if (newest_ts == NO_TIME) return out;
    gather();
    out.reserve(FRAMES);
    if (second_.open_time != NO_TIME && second_.open_time == bucket(0, newest_ts).open) out.push_back(second_);
    for (int tf = 1; tf < FRAMES; ++tf) {
        Row row = blank(tf);
        if (live_row(tf, row)) out.push_back(row);
    }
    for (Row& row : out) row.reason = PROOF;
    return out;
}

// Stored row ⊕ pending deltas of the newest bucket; false if it is closed, not loaded or has no trade.
bool TapeCore::live_row(int tf, Row& out) const {
    const Span span = bucket(tf, newest_ts);
    const Frame& frame = frames_[static_cast<std::size_t>(tf)];
    const Row* stored = frame.find(span.open);
    if (span.end <= watermark || (!stored && span.open <= frame.newest)) return false;
    out.open_time = span.open;
    if (stored) {
        out.merge(*stored);
        out.pos = stored->pos;
        out.rev = stored->rev;
    }
    const auto first = std::partition_point(
        deltas_.begin(), deltas_.end(), [&](const Row& r) { return r.open_time < span.open; });
    for (auto delta = first; delta != deltas_.end() && delta->open_time < span.end; ++delta) out.merge(*delta);
    return out.trades != 0;
}

}  // namespace tapewick
