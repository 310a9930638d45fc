// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "agent/base/error.h"

#include <optional>
#include <string>

namespace thruway::cni {

/// Error codes of the CNI specification (version 1.1.0, "Error").
enum Code : int {
    incompatible_version = 1,
    invalid_environment = 4,
    io_failure = 5,
    decoding_failure = 6,
    invalid_config = 7,
    try_again_later = 11,
    failure = 100, ///< the plugin's own
};

/// What a runtime passes in the environment and on standard input.
struct Call {
    std::string command;
    std::string container;
    std::string netns;
    std::string interface;
    std::string pod_namespace; ///< from CNI_ARGS
    std::string pod_name;
    std::string version; ///< cniVersion of the configuration
    std::string socket = "/run/thruway/agent.sock";
    std::optional<unsigned> mtu; ///< none: the agent's choice
};

/// A failure with the code that the runtime gets to see (Error::code()).
template<typename T = void>
using Outcome = Result<T>;

/// Reads and checks environment and configuration.
Outcome<Call> read_call(const std::string &config);

/// The versions of the specification that are spoken.
bool speaks(const std::string &version);
std::string version_answer(const std::string &asked);

} // namespace thruway::cni
