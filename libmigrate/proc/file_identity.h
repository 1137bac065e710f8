#pragma once

#include <sys/stat.h>

#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.h"
#include "libmigrate/proto/image.pb.h"

namespace migrate {

/// What a file system type (statfs f_type) means for moving.
enum class FilesystemClass {
  kLocal,    ///< Stores files, on this host alone.
  kNetwork,  ///< Stores files that several hosts may see.
  kKernel,   ///< Shows or steers the kernel: proc, sysfs, cgroups, ...
  kHugePages,
  kUnknown,
};
FilesystemClass filesystem_class(std::uint64_t filesystem_type);

/// Whether `text` can be the path of a file as an image tells it: absolute, without a zero byte,
/// and short enough for the kernel. Const-thread-safe.
bool is_path(std::string_view text);

/// SHA-256 of bytes, 32 bytes. Const-thread-safe.
std::string sha256(std::string_view bytes);

/// SHA-256 of the file's whole content, read from its start without moving its position. Blocks.
Result<std::string> sha256_of_file(int fd);

/// The GNU build-id note of an ELF file, or empty if it has none or is no ELF file. Blocks.
Result<std::string> read_build_id(int fd);

/// What stat and statfs tell of the file that `name` in directory `directory` leads to (links
/// followed), or of `directory` itself if `name` is empty; `path` is written down as its path.
/// Neither build-id nor hash. Blocks as file systems do.
Result<wire::FileIdentity> identify_at(int directory, const std::string& name,
                                       const std::string& path);

/// statfs f_type of what `name` in directory `directory` leads to, or `directory` if it is empty.
Result<std::uint64_t> filesystem_type_at(int directory, const std::string& name);

/// Adds what tells the content: build-id, or else the hash of a regular file of at most
/// `hash_limit_bytes`. `fd` must be open for reading. Blocks.
Result<void> add_content_identity(int fd, std::uint64_t hash_limit_bytes,
                                  wire::FileIdentity& identity);

/// Same device and inode.
bool same_file(const wire::FileIdentity& one, const wire::FileIdentity& other);
/// Same device, inode, size and times: surely the same content.
bool unchanged(const wire::FileIdentity& before, const wire::FileIdentity& now);
/// Whether the open file `fd` is surely the one that `file` was taken of, perhaps by another host,
/// or has its content: a device by its numbers; a file by inode and time of birth, or where no
/// birth is known by its inode on the network or all its times; else by build-id or hash. Says no
/// where nothing tells. Blocks: may read it all.
bool is_surely(const wire::FileIdentity& file, int fd);

}  // namespace migrate
