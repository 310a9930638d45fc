// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "agent/base/error.h"
#include "agent/base/fd.h"
#include "agent/state/objects.h"

#include <functional>
#include <string>
#include <vector>

namespace thruway {

/// The objects of the cluster as a file beside the maps, so that whoever looks into the maps can say names, with or
/// without an agent. One line an object, later lines replace earlier ones; a change costs the line of its object.
class Journal {
public:
    /// Calls `visit` for every object that exists.
    using Walk = std::function<void(const std::function<void(const Object &)> &visit)>;

    /// `path` is replaced by the first write.
    Journal(std::string path, Walk walk) : path_(std::move(path)), walk_(std::move(walk)) {}

    /// Notes changes, to be written by flush().
    void note(const std::vector<Change> &changes);

    /// Writes what was noted. When the file has become twice what its objects need, it is written anew.
    Result<> flush();

    /// The objects in the file at `path`. Lines that cannot be read are left out: the last one may be half written.
    static Result<std::vector<Object>> read(const std::string &path);

private:
    Result<> rewrite();
    Result<> append(const std::string &text);

    std::string path_;
    Walk walk_;
    Fd file_;
    std::string noted_;
    size_t size_ = 0;
    size_t compact_size_ = 0;
};

} // namespace thruway
