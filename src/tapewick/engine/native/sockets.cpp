// The same bytes to many sockets: what a fan-out spends beside the kernel's own work.
#include <nanobind/nanobind.h>

#ifndef _WIN32
#include <sys/socket.h>

#include <cerrno>
#include <cstdint>
#include <utility>
#include <vector>

#include "arrays.hpp"

namespace nb = nanobind;
using namespace nb::literals;

namespace {

#ifdef MSG_NOSIGNAL
constexpr int FLAGS = MSG_DONTWAIT | MSG_NOSIGNAL;
#else
constexpr int FLAGS = MSG_DONTWAIT;  // Python ignores SIGPIPE
#endif

// The GIL is kept: whoever waits for it would take it for 5 ms, and a write lasts a few microseconds.
nb::list send_each(nb::handle descriptors, const nb::bytes& data) {
    std::vector<std::pair<std::size_t, std::size_t>> short_of;
    {
        const tapewick::View view(descriptors, PyBUF_C_CONTIGUOUS | PyBUF_FORMAT);
        if (view->itemsize != sizeof(std::int32_t)) throw nb::type_error("descriptors must be 32-bit integers");
        const auto* fds = static_cast<const std::int32_t*>(view->buf);
        const std::size_t count = static_cast<std::size_t>(view->len) / sizeof(std::int32_t);
        for (std::size_t i = 0; i < count; i++) {
            ssize_t taken;
            do taken = send(fds[i], data.c_str(), data.size(), FLAGS);
            while (taken < 0 && errno == EINTR);
            if (taken < 0) taken = 0;
            if (static_cast<std::size_t>(taken) != data.size()) short_of.emplace_back(i, taken);
        }
    }  // before the list is made: that may run other Python code, which must be free to change the array
    nb::list out;
    for (const auto& [index, taken] : short_of) out.append(nb::make_tuple(index, taken));
    return out;
}

}  // namespace

void bind_sockets(nb::module_& m) {
    m.def("send_each", send_each, "descriptors"_a, "data"_a,
          "Offer data to each of these sockets once, without waiting. Returns (index, bytes taken) of those that did "
          "not take it whole; a broken one has taken nothing.");
}

#else
void bind_sockets(nanobind::module_&) {}
#endif
