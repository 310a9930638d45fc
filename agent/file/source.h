// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "agent/base/loop.h"
#include "agent/file/folder.h"
#include "agent/file/holdings.h"
#include "agent/state/source.h"

#include <map>
#include <string>

namespace thruway {

/// A folder of Kubernetes manifests (*.yaml, *.yml, *.json), followed as it changes. A file or folder that cannot be
/// read, for whatever reason and for however long, takes nothing back: what it said last stays.
class FileSource : public Source {
public:
    /// `loop` must outlive this.
    FileSource(Loop &loop, std::string folder, SourceEvents events);
    ~FileSource() override;

    /// Tells everything from within the loop. Fails only if the system has no means to follow folders left.
    Result<> start() override;

private:
    /// Files to look at, and what happened to them last.
    using Files = std::map<std::string, Folder::Event>;

    void check_folder();
    void on_events();
    void on_settled();

    bool find_folder();
    void lose_folder(const Error &error);
    Result<> note_all();
    void note(const std::string &name, Folder::Event event);
    void wait_for_settling();
    void look_at(const Files &files);
    void tell(Holdings::Upshot upshot);

    Loop &loop_;
    SourceEvents events_;
    Folder folder_;
    Holdings holdings_;
    bool missing_ = false; ///< and told so
    bool synced_ = false;
    Files due_;      ///< to be looked at now
    Files settling_; ///< to be looked at when nothing more happens to them
    Loop::Clock::time_point settling_since_;
    Loop::Timer settle_timer_ = 0; ///< 0: none is set
    Loop::Timer check_timer_ = 0;
};

} // namespace thruway
