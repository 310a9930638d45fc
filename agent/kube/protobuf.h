// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "agent/base/error.h"
#include "agent/kube/splitter.h"
#include "agent/state/objects.h"

#include <cstddef>
#include <string>
#include <string_view>

namespace thruway {

/// Whether the API server has answered in protobuf: no JSON begins so. Where it may choose, it sends what is less than
/// half as long (docs/design.md, Figures).
bool is_protobuf(std::string_view answer);

/// Cuts a watch in protobuf, which arrives in pieces, into its events, and brings each into JSON: the fields that are
/// used, and no others. So there is one code that says what objects mean.
class ProtobufStream {
public:
    /// Fails on an event longer than `limit`, as Splitter does.
    explicit ProtobufStream(Kind kind, size_t limit = size_t{8} << 20) : kind_(kind), limit_(limit) {}

    /// Calls `take` with each event once it is whole. An error from it ends the feeding.
    Result<> feed(std::string_view bytes, const Splitter::Take &take);

    /// Nothing is half read.
    [[nodiscard]] bool is_complete() const { return pending_.empty(); }

private:
    Kind kind_;
    size_t limit_;
    std::string pending_; ///< of an event that is not whole
};

/// What an API server says in protobuf when it does not do what it was asked (meta/v1 Status), in JSON. Empty if it is
/// none.
std::string status_from_protobuf(std::string_view body);

} // namespace thruway
