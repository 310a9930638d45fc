// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "agent/base/error.h"

#include <cstddef>
#include <functional>
#include <string>
#include <string_view>

namespace thruway {

/// Cuts JSON that arrives in pieces into its objects, without reading what is in them: no more than one object is held
/// at a time, however long the answer is.
class Splitter {
public:
    enum class Shape {
        stream, ///< objects one behind the other, as a watch sends them
        list,   ///< one object with the objects in its field "items"
    };

    /// Gets each object once it is whole. An error from it ends the feeding. It may change the text.
    using Take = std::function<Result<>(std::string &object)>;

    /// Fails on an object longer than `limit`, which is more than the API server stores (1.5 MiB, etcd's limit).
    explicit Splitter(Shape shape, size_t limit = size_t{8} << 20) : shape_(shape), limit_(limit) {}

    Result<> feed(std::string_view bytes, const Take &take);

    /// Nothing is half read; a list has come to its end.
    [[nodiscard]] bool is_complete() const;

    /// Of a list: all but its items.
    [[nodiscard]] std::string take_frame() { return std::move(frame_); }

private:
    [[nodiscard]] bool between_objects() const;
    Result<> structural(char c);
    Result<> finish(const Take &take);
    [[nodiscard]] std::string &target() { return inside_object_ ? object_ : frame_; }

    Shape shape_;
    size_t limit_;
    std::string object_;
    std::string frame_;
    size_t depth_ = 0;
    bool inside_string_ = false;
    bool escaped_ = false;
    bool inside_object_ = false;
    bool inside_items_ = false;
};

} // namespace thruway
