// SPDX-License-Identifier: Apache-2.0
#include "agent/kube/credentials.h"

#include <chrono>
#include <utility>

namespace thruway {
namespace {

/// What expires within this time is renewed at once: by the next look at it, it would be too late.
constexpr std::chrono::milliseconds leeway = std::chrono::minutes(1);

bool has_expired(const ExecCredential &credential)
{
    const auto soon = std::chrono::system_clock::now() + leeway;
    return credential.expires != 0 && soon.time_since_epoch() / std::chrono::milliseconds(1) > credential.expires;
}

Access with(Access access, const ExecCredential &credential)
{
    access.token = credential.token;
    access.certificate = credential.certificate;
    access.key = credential.key;
    return access;
}

} // namespace

void Credentials::get(bool refused, const Done &done)
{
    auto access = read_access(options_);
    if (!access || !access->exec)
        return done(std::move(access));
    if (access->exec == plugin_ && !refused && !has_expired(credential_))
        return done(with(std::move(*access), credential_));

    auto run = ExecRun::start(loop_, *access, [this, access = *access, done](Result<ExecCredential> credential) {
        on_handed_out(access, std::move(credential), done);
    });
    if (!run)
        return done(std::unexpected(run.error()));
    run_ = std::move(*run);
}

void Credentials::on_handed_out(Access access, Result<ExecCredential> credential, const Done &done)
{
    const Done call = done; // which goes with the run
    run_.reset();
    if (!credential)
        return call(std::unexpected(credential.error()));
    plugin_ = access.exec;
    credential_ = std::move(*credential);
    call(with(std::move(access), credential_));
}

} // namespace thruway
