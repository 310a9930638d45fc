// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "agent/base/error.h"
#include "agent/state/objects.h"

#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace thruway {

/// What became of one object of a JSON text.
struct Decoded {
    /// None if the object has no name, or is of a kind that is not used.
    std::optional<ObjectKey> key;

    /// None if the object was refused (then `faults` says why), or if it is not wanted: a watcher has to take such a
    /// one for deleted.
    std::optional<Object> object;

    /// What was refused, the object or parts of it: "Service default/web: spec.ports[1].port: must be 1 to 65535, is
    /// 0".
    std::vector<std::string> faults;
};

/// Reads Kubernetes objects from JSON: Service, Node, Pod, Namespace (v1), EndpointSlice (discovery.k8s.io/v1), and
/// lists of them. Keeps the memory that reading takes, so one decoder should read many texts.
class Decoder {
public:
    Decoder();
    Decoder(const Decoder &) = delete;
    Decoder &operator=(const Decoder &) = delete;
    ~Decoder();

    /// All objects of `json`, which holds any number of documents, one behind the other. Fails if the text is not JSON
    /// or ends early: then nothing of it should be believed. What is wrong with one object stands in its Decoded.
    /// `line` is the number of the first line, for messages.
    Result<std::vector<Decoded>> decode(std::string json, size_t line = 1);

private:
    struct Memory;
    std::unique_ptr<Memory> memory_;
};

} // namespace thruway
