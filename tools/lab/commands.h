// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "agent/base/error.h"

#include <CLI/CLI.hpp>

/// The subcommands of thruway-lab. Each leaves the process's exit code in `code`.
namespace thruway::lab {

constexpr int exit_failed = 1;
constexpr int exit_usage = 2;

/// Prints an error as one line on standard error.
void print_error(const std::string &text);

/// The exit code for a result, its error printed.
int exit_code(const Result<> &result);

/// up, down, status, exec, pod, agent
void add_lab_commands(CLI::App &app, int &code);

/// echo, ask, bulk, hold, sctp-serve, sctp-dial
void add_traffic_commands(CLI::App &app, int &code);

} // namespace thruway::lab
