// SPDX-License-Identifier: Apache-2.0
#include "agent/datapath/map.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <cstdio>
#include <fstream>
#include <sys/mman.h>
#include <unistd.h>

namespace thruway {

Result<Map> Map::adopt(Fd fd, std::string name)
{
    bpf_map_info info{};
    uint32_t size = sizeof(info);

    if (bpf_map_get_info_by_fd(fd.get(), &info, &size) != 0)
        return fail_errno("map {}", name);
    Map map;
    map.fd_ = std::move(fd);
    map.name_ = std::move(name);
    map.id_ = info.id;
    map.type_ = info.type;
    map.key_size_ = info.key_size;
    map.value_size_ = info.value_size;
    map.capacity_ = info.max_entries;
    map.flags_ = info.map_flags;
    return map;
}

Result<Map> Map::open(const std::string &path, std::string name)
{
    Fd fd(bpf_obj_get(path.c_str()));
    if (!fd)
        return fail_errno("cannot open map {}", path);
    return adopt(std::move(fd), std::move(name));
}

Result<> Map::expect(size_t key_size, size_t value_size) const
{
    if (key_size_ != key_size || value_size_ != value_size)
        return fail("map {}: keys of {} and values of {} bytes, expected {} and {}", name_, key_size_, value_size_,
                    key_size, value_size);
    return {};
}

bool Map::per_cpu() const
{
    return type_ == BPF_MAP_TYPE_PERCPU_ARRAY || type_ == BPF_MAP_TYPE_PERCPU_HASH;
}

Result<bool> Map::find_raw(const void *key, void *value) const
{
    if (bpf_map_lookup_elem(fd_.get(), key, value) == 0)
        return true;
    if (errno == ENOENT)
        return false;
    return fail_errno("map {}: cannot look up", name_);
}

std::unexpected<Error> Map::insert_failed(int code) const
{
    if (code == E2BIG || code == ENOSPC)
        return std::unexpected(Error(fmt::format("map {} is full ({} entries)", name_, capacity_), code));
    return fail_code(code, "map {}: cannot insert", name_);
}

Result<> Map::insert_raw(const void *keys, const void *values, size_t count) const
{
    if (count == 1) {
        if (bpf_map_update_elem(fd_.get(), keys, values, BPF_NOEXIST) != 0)
            return insert_failed(errno);
        return {};
    }
    auto done = static_cast<uint32_t>(count);
    if (count > 0 && bpf_map_update_batch(fd_.get(), keys, values, &done, nullptr) != 0)
        return insert_failed(errno);
    return {};
}

Result<> Map::erase_raw(const void *key) const
{
    if (bpf_map_delete_elem(fd_.get(), key) != 0 && errno != ENOENT)
        return fail_errno("map {}: cannot erase", name_);
    return {};
}

Result<> Map::each_raw(const std::function<void(const void *key, const void *value)> &visit) const
{
    const size_t copies = per_cpu() ? static_cast<size_t>(libbpf_num_possible_cpus()) : 1;
    const size_t value_size = per_cpu() ? (value_size_ + 7) / 8 * 8 : value_size_;
    std::vector<char> key(key_size_);
    std::vector<char> next(key_size_);
    std::vector<char> value(value_size * copies);
    const void *before = nullptr;

    while (bpf_map_get_next_key(fd_.get(), before, next.data()) == 0) {
        key.swap(next);
        before = key.data();
        auto found = find_raw(key.data(), value.data());
        if (!found)
            return std::unexpected(found.error());
        if (*found)
            visit(key.data(), value.data());
    }
    if (errno != ENOENT)
        return fail_errno("map {}: cannot walk", name_);
    return {};
}

Result<uint32_t> Map::count() const
{
    uint32_t entries = 0;
    std::vector<char> key(key_size_);
    const void *before = nullptr;

    while (bpf_map_get_next_key(fd_.get(), before, key.data()) == 0) {
        before = key.data();
        entries++;
    }
    if (errno != ENOENT)
        return fail_errno("map {}: cannot walk", name_);
    return entries;
}

Result<uint64_t> Map::memory() const
{
    std::ifstream info(fmt::format("/proc/self/fdinfo/{}", fd_.get()));
    std::string word;

    while (info >> word) {
        uint64_t bytes = 0;
        if (word == "memlock:" && info >> bytes)
            return bytes;
    }
    return fail("map {}: the kernel does not tell its size", name_);
}

Result<> pin_over(int fd, const std::string &path)
{
    const std::string next = path + "-new"; // bpffs allows no dots
    ::unlink(next.c_str());
    if (bpf_obj_pin(fd, next.c_str()) != 0)
        return fail_errno("cannot pin {}", next);
    if (::rename(next.c_str(), path.c_str()) != 0)
        return fail_errno("cannot rename {}", next);
    return {};
}

Result<Mapping> Mapping::of(const Map &map, bool writable)
{
    const size_t stride = (static_cast<size_t>(map.value_size()) + 7) / 8 * 8;
    const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    const size_t size = (stride * map.capacity() + page - 1) / page * page;
    void *memory = mmap(nullptr, size, writable ? PROT_READ | PROT_WRITE : PROT_READ, MAP_SHARED, map.fd(), 0);

    if (memory == MAP_FAILED)
        return fail_errno("map {}: cannot map its memory", map.name());
    Mapping mapping;
    mapping.memory_ = memory;
    mapping.size_ = size;
    return mapping;
}

Mapping &Mapping::operator=(Mapping &&other) noexcept
{
    if (this != &other) {
        if (memory_)
            munmap(memory_, size_);
        memory_ = std::exchange(other.memory_, nullptr);
        size_ = other.size_;
    }
    return *this;
}

Mapping::~Mapping()
{
    if (memory_)
        munmap(memory_, size_);
}

} // namespace thruway
