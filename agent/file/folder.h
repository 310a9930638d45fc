// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "agent/base/error.h"
#include "agent/base/fd.h"

#include <cstdint>
#include <string>
#include <sys/types.h>
#include <utility>
#include <vector>

namespace thruway {

/// The manifests in the folder that a path leads to at the moment, and what happens to them (by inotify). Folders
/// within it are not looked into.
class Folder {
public:
    /// What happened to a file last.
    enum class Event : uint8_t {
        written, ///< closed by its writer, or moved here: it is complete
        growing, ///< written to, and not closed yet
        altered, ///< it came or went in another way, and may well come or go again in a moment
    };

    struct Events {
        std::vector<std::pair<std::string, Event>> files; ///< in the order in which it happened
        bool lost = false;                                ///< any file may have changed
    };

    struct Text {
        std::string text;
        uint64_t stamp = 0; ///< of the file as it was read; 0 if it is so new that it may change and keep its stamp
    };

    explicit Folder(std::string path) : path_(std::move(path)) {}

    [[nodiscard]] const std::string &path() const { return path_; }

    /// Must succeed before anything else is called.
    Result<> start();

    /// Readable when there are events.
    [[nodiscard]] int fd() const { return inotify_.get(); }

    /// Makes sure that the folder that is followed is the one that the path leads to. True if that is not the same as
    /// at the last call: then nothing is known of its files.
    Result<bool> follow();

    /// The next follow() finds another folder, whatever it finds.
    void unfollow();

    /// All events since the last call. Never waits.
    Events take_events();

    /// Names of the manifests.
    [[nodiscard]] Result<std::vector<std::string>> list() const;

    /// Fails with ENOENT if there is no such file.
    [[nodiscard]] Result<Text> read(const std::string &name) const;

    /// A number that changes whenever the file does; 0 if there is none.
    [[nodiscard]] uint64_t stamp(const std::string &name) const;

private:
    static constexpr int no_watch = -1;

    [[nodiscard]] std::string path_of(const std::string &name) const { return path_ + '/' + name; }

    std::string path_;
    Fd inotify_;
    int watch_ = no_watch;
    dev_t device_ = 0;
    ino_t inode_ = 0;
};

} // namespace thruway
