// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "agent/kube/decode.h"
#include "agent/state/objects.h"

#include <cstdint>
#include <functional>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace thruway {

/// What was found on looking at a file.
struct Reading {
    enum class State : uint8_t { good, broken, gone };

    State state = State::gone;
    std::string error;            ///< why it is broken
    std::vector<Decoded> objects; ///< of a good one
    bool complete = true;         ///< false: its writer may not be done, and what is missing may still come
    uint64_t stamp = 0;           ///< see Folder
};

/// By name of the file.
using Readings = std::map<std::string, Reading>;

/// Which file holds which object. Turns what is read in files into what changes. An object counts as it stands in the
/// file that had it first. A file that cannot be read any more goes on holding what it held, and the same goes for one
/// object of it. Keeps names and fingerprints only, neither texts nor objects.
class Holdings {
public:
    /// What follows from some readings.
    struct Upshot {
        std::vector<Change> changes;
        std::vector<std::string> refused; ///< what was not refused before: "file: reason"
        std::vector<std::string> mended;  ///< files that can be read again
        std::vector<std::string> retry;   ///< files with an object that an unsettled file may be about to give up
    };

    /// Tells whether a file is about to be read again.
    using Unsettled = std::function<bool(const std::string &file)>;

    /// Files that have to be read as well, because `readings` give up objects that they have too.
    [[nodiscard]] std::set<std::string> heirs(const Readings &readings) const;

    /// Takes readings in.
    Upshot apply(Readings readings, const Unsettled &unsettled);

    /// All files that exist as far as the readings say.
    [[nodiscard]] std::vector<std::string> files() const;

    /// The stamp of the last reading of a file; 0 if there was none.
    [[nodiscard]] uint64_t stamp(const std::string &file) const;

private:
    struct File {
        std::vector<ObjectKey> objects; ///< sorted; also those that wait behind another file
        std::vector<uint64_t> told;     ///< fingerprints of the refusals in the last reading
        uint64_t stamp = 0;
        bool broken = false;
    };

    /// An object that was told, and is not deleted.
    struct Holding {
        uint64_t fingerprint = 0;
        std::string file; ///< the one that counts; none for a moment, while it is passed on
    };

    static std::vector<ObjectKey> objects_after(const File &file, const Reading &reading);
    [[nodiscard]] bool counts(const ObjectKey &key, const std::string &name) const;
    void take_in(const std::string &name, Reading reading, const Unsettled &unsettled, Upshot &upshot);
    std::vector<std::string> take_objects(const std::string &name, std::vector<Decoded> objects,
                                          const Unsettled &unsettled, Upshot &upshot);
    void claim(const ObjectKey &key, Object object, const std::string &name, Upshot &upshot);
    void wait(const ObjectKey &key, const std::string &name);
    void stop_waiting(const ObjectKey &key, const std::string &name);

    std::unordered_map<std::string, File> files_;
    std::unordered_map<ObjectKey, Holding> holdings_;
    std::multimap<ObjectKey, std::string> waiting_; ///< files that have an object which counts in another one
};

} // namespace thruway
