// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <compare>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

namespace thruway {

/// A string that many objects repeat (namespace, node, zone, port name), kept once and compared as a number. Never
/// freed: a cluster has few of them. Safe to make and read in any thread.
class Symbol {
public:
    /// The empty string.
    Symbol() = default;
    explicit Symbol(std::string_view text);

    [[nodiscard]] std::string_view text() const;
    [[nodiscard]] bool empty() const { return id_ == 0; }
    [[nodiscard]] uint32_t id() const { return id_; }

    friend bool operator==(Symbol, Symbol) = default;
    /// By text, so that listings come out sorted.
    friend std::strong_ordering operator<=>(Symbol a, Symbol b)
    {
        return a.id_ == b.id_ ? std::strong_ordering::equal : a.text() <=> b.text();
    }

private:
    uint32_t id_ = 0;
};

} // namespace thruway

template<>
struct std::hash<thruway::Symbol> {
    size_t operator()(thruway::Symbol symbol) const noexcept { return symbol.id() * 0x9e3779b97f4a7c15ULL; }
};
