// SPDX-License-Identifier: Apache-2.0
#include "agent/datapath/object.h"

#include "agent/datapath/features.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

namespace thruway {
namespace {

/// Not cryptographic: it tells builds and settings apart.
class Digest {
public:
    void add(const void *data, size_t size)
    {
        const auto *bytes = static_cast<const uint8_t *>(data);
        for (size_t i = 0; i < size; i++)
            for (size_t lane = 0; lane < lanes_.size(); lane++)
                lanes_[lane] = (lanes_[lane] ^ bytes[i]) * (0x100000001b3ULL + 2 * lane);
    }

    [[nodiscard]] ProgramsDigest value() const
    {
        ProgramsDigest bytes{};
        std::memcpy(bytes.data(), lanes_.data(), bytes.size());
        return bytes;
    }

private:
    std::array<uint64_t, sizeof(ProgramsDigest) / sizeof(uint64_t)> lanes_{0xcbf29ce484222325ULL,
                                                                           0x84222325cbf29ce4ULL};
};

} // namespace

Result<Skeleton> open_object()
{
    Skeleton skeleton(datapath__open());
    if (!skeleton)
        return fail_errno("cannot open the BPF object");
    return skeleton;
}

Result<> load_object(datapath &skeleton, const tw_config &config)
{
    std::memcpy(const_cast<tw_config *>(&skeleton.rodata_config->config), &config, sizeof(config));
    bpf_map__set_autocreate(skeleton.maps.steps, config.dry != 0);
    libbpf_complaint().clear();
    if (datapath__load(&skeleton) != 0)
        return fail_errno("cannot load the BPF programs ({})", libbpf_complaint());
    return {};
}

ProgramsDigest digest_of(const tw_config &config, const Maps &maps)
{
    size_t size = 0;
    const void *code = datapath__elf_bytes(&size);
    Digest digest;

    digest.add(code, size);
    digest.add(&config, sizeof(config));
    for (const Maps::Member &member : Maps::members) {
        const uint32_t id = (maps.*member.map).id();
        digest.add(&id, sizeof(id));
    }
    if (config.previous_mask != 0)
        for (const Map *map : {&maps.previous4, &maps.previous6}) {
            const uint32_t id = map->id();
            digest.add(&id, sizeof(id));
        }
    return digest.value();
}

} // namespace thruway
