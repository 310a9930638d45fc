// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "agent/base/error.h"
#include "agent/base/fd.h"

#include <atomic>
#include <cstdint>
#include <cstring>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace thruway {

/// A BPF map by its descriptor. Calls take what the map's layout says; sizes are checked when it is opened.
class Map {
public:
    Map() = default;

    /// Takes over a descriptor, and asks the kernel what it is.
    static Result<Map> adopt(Fd fd, std::string name);

    /// Opens the map that is pinned at `path`, for reading and writing: the kernel maps no memory of others.
    static Result<Map> open(const std::string &path, std::string name);

    [[nodiscard]] int fd() const { return fd_.get(); }
    [[nodiscard]] uint32_t id() const { return id_; }
    [[nodiscard]] const std::string &name() const { return name_; }
    [[nodiscard]] uint32_t type() const { return type_; }
    [[nodiscard]] uint32_t key_size() const { return key_size_; }
    [[nodiscard]] uint32_t value_size() const { return value_size_; }
    [[nodiscard]] uint32_t capacity() const { return capacity_; }
    [[nodiscard]] uint32_t flags() const { return flags_; }

    /// Fails unless keys and values have these sizes.
    [[nodiscard]] Result<> expect(size_t key_size, size_t value_size) const;

    template<typename Key, typename Value>
    Result<std::optional<Value>> find(const Key &key) const
    {
        Value value{};
        auto found = find_raw(&key, &value);
        if (!found)
            return std::unexpected(found.error());
        return *found ? std::optional(value) : std::nullopt;
    }

    /// Inserts a key that is not there yet: the value of a key never changes (see bpf/lib/maps.h).
    template<typename Key, typename Value>
    Result<> insert(const Key &key, const Value &value) const
    {
        return insert_raw(&key, &value, 1);
    }

    /// Inserts many keys with few system calls. On failure some may be in.
    template<typename Key, typename Value>
    Result<> insert(std::span<const Key> keys, std::span<const Value> values) const
    {
        return insert_raw(keys.data(), values.data(), keys.size());
    }

    /// Erasing what is not there is no error.
    template<typename Key>
    Result<> erase(const Key &key) const
    {
        return erase_raw(&key);
    }

    /// Calls `visit(key, value)` for each entry. Entries that come or go meanwhile may be seen or not.
    template<typename Key, typename Value, typename Visit>
    Result<> each(Visit visit) const
    {
        return each_raw([&](const void *key, const void *value) {
            Key k{};
            Value v{};
            std::memcpy(&k, key, sizeof(k));
            std::memcpy(&v, value, sizeof(v));
            visit(k, v);
        });
    }

    Result<> each_raw(const std::function<void(const void *key, const void *value)> &visit) const;

    /// How many entries a hash or trie holds.
    [[nodiscard]] Result<uint32_t> count() const;

    /// Kernel memory behind the map in bytes, as the kernel accounts for it.
    [[nodiscard]] Result<uint64_t> memory() const;

private:
    [[nodiscard]] bool per_cpu() const;
    Result<bool> find_raw(const void *key, void *value) const;
    Result<> insert_raw(const void *keys, const void *values, size_t count) const;
    Result<> erase_raw(const void *key) const;
    [[nodiscard]] std::unexpected<Error> insert_failed(int code) const;

    Fd fd_;
    std::string name_;
    uint32_t id_ = 0;
    uint32_t type_ = 0;
    uint32_t key_size_ = 0;
    uint32_t value_size_ = 0;
    uint32_t capacity_ = 0;
    uint32_t flags_ = 0;
};

/// Pins an object of the kernel's in the place of what is pinned there, in one step.
Result<> pin_over(int fd, const std::string &path);

/// The memory of an array map, shared with the programs that run on it.
class Mapping {
public:
    Mapping() = default;
    static Result<Mapping> of(const Map &map, bool writable);
    Mapping(Mapping &&other) noexcept : memory_(std::exchange(other.memory_, nullptr)), size_(other.size_) {}
    Mapping &operator=(Mapping &&other) noexcept;
    Mapping(const Mapping &) = delete;
    Mapping &operator=(const Mapping &) = delete;
    ~Mapping();

    [[nodiscard]] char *data() const { return static_cast<char *>(memory_); }
    [[nodiscard]] size_t size() const { return size_; }

private:
    void *memory_ = nullptr;
    size_t size_ = 0;
};

/// An array map as C++ sees it.
template<typename Row>
class MappedArray {
public:
    MappedArray() = default;

    static Result<MappedArray> of(const Map &map, bool writable)
    {
        if (auto fits = map.expect(sizeof(uint32_t), sizeof(Row)); !fits)
            return std::unexpected(fits.error());
        auto mapping = Mapping::of(map, writable);
        if (!mapping)
            return std::unexpected(mapping.error());
        MappedArray array;
        array.mapping_ = std::move(*mapping);
        array.size_ = map.capacity();
        return array;
    }

    Row &operator[](uint32_t index) { return *reinterpret_cast<Row *>(mapping_.data() + index * stride); }
    const Row &operator[](uint32_t index) const
    {
        return *reinterpret_cast<const Row *>(mapping_.data() + index * stride);
    }
    [[nodiscard]] uint32_t size() const { return size_; }

private:
    static constexpr size_t stride = (sizeof(Row) + 7) / 8 * 8; // what the kernel gives each entry

    Mapping mapping_;
    uint32_t size_ = 0;
};

/// Changes part of a row that programs may be reading, by one store; all writes before it are seen by whoever sees it.
/// Does not write what is there already. `Part` is at most 8 bytes and aligned to its size.
template<typename Part>
void publish(Part &part, const Part &value)
{
    static_assert(sizeof(Part) == 2 || sizeof(Part) == 4 || sizeof(Part) == 8);
    using Word =
        std::conditional_t<sizeof(Part) == 8, uint64_t, std::conditional_t<sizeof(Part) == 4, uint32_t, uint16_t>>;
    Word word;
    std::memcpy(&word, &value, sizeof(word));
    const std::atomic_ref<Word> target(reinterpret_cast<Word &>(part));
    if (target.load(std::memory_order_relaxed) != word)
        target.store(word, std::memory_order_release);
}

} // namespace thruway
