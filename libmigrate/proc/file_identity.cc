#include "libmigrate/proc/file_identity.h"

#include <elf.h>
#include <fcntl.h>
#include <limits.h>
#include <openssl/evp.h>
#include <sys/statfs.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <memory>
#include <span>
#include <vector>

#include "base/file.h"

namespace migrate {
namespace {

constexpr std::array<std::uint64_t, 29> kLocal{
    0xEF53,      // ext2, ext3, ext4
    0x58465342,  // xfs
    0x9123683E,  // btrfs
    0x01021994,  // tmpfs
    0x858458f6,  // ramfs
    0x794c7630,  // overlayfs
    0xF2F52010,  // f2fs
    0xE0F5E1E2,  // erofs
    0x73717368,  // squashfs
    0x9660,      // isofs
    0x15013346,  // udf
    0x4d44,      // vfat
    0x2011BAB0,  // exfat
    0x5346544e,  // ntfs
    0x7366746e,  // ntfs3
    0x2fc12fc1,  // zfs
    0xca451a4e,  // bcachefs
    0x3153464a,  // jfs
    0x52654973,  // reiserfs
    0x137F,      // minix
    0x61756673,  // aufs
    0xf15f,      // ecryptfs
    0x28cd3d45,  // cramfs
    0x3434,      // nilfs
    0x24051905,  // ubifs
    0x72b6,      // jffs2
    0xadf5,      // adfs
    0x482b,      // hfsplus
    0x4244,      // hfs
};

constexpr std::array<std::uint64_t, 14> kNetwork{
    0x6969,      // nfs
    0x0BD00BD0,  // lustre
    0x47504653,  // gpfs
    0xFF534D42,  // cifs
    0xFE534D42,  // smb2
    0x517B,      // smb
    0x00C36400,  // ceph
    0x01021997,  // 9p
    0x65735546,  // fuse, virtiofs
    0x5346414F,  // afs
    0x01161970,  // gfs2
    0x7461636f,  // ocfs2
    0x19830326,  // beegfs
    0x20030528,  // orangefs
};

constexpr std::array<std::uint64_t, 18> kKernel{
    0x9fa0,      // proc
    0x62656572,  // sysfs
    0x27e0eb,    // cgroup
    0x63677270,  // cgroup2
    0x64626720,  // debugfs
    0x74726163,  // tracefs
    0x73636673,  // securityfs
    0x62656570,  // configfs
    0xcafe4a11,  // bpf
    0xde5e81e4,  // efivarfs
    0x6165676C,  // pstore
    0xf97cff8c,  // selinuxfs
    0x43415d53,  // smackfs
    0x42494e4d,  // binfmtfs
    0x6e736673,  // nsfs
    0x50494446,  // pidfs
    0x67596969,  // rpc_pipefs
    0x7655821,   // resctrl
};

constexpr std::uint64_t kHugetlbfs = 0x958458f6;

using DigestContext = std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)>;

DigestContext start_digest() {
  DigestContext context(EVP_MD_CTX_new(), &EVP_MD_CTX_free);
  EVP_DigestInit_ex(context.get(), EVP_sha256(), nullptr);
  return context;
}

std::string finish_digest(const DigestContext& context) {
  std::array<unsigned char, 32> digest{};
  EVP_DigestFinal_ex(context.get(), digest.data(), nullptr);
  return {reinterpret_cast<const char*>(digest.data()), digest.size()};
}

// Whether `length` bytes at `offset` of the file could be read.
bool read_exactly(int fd, void* target, std::size_t length, std::uint64_t offset) {
  return ::pread(fd, target, length, static_cast<off_t>(offset)) == static_cast<ssize_t>(length);
}

std::string find_build_id(std::string_view notes, std::size_t alignment) {
  const auto aligned = [alignment](std::size_t size) {
    return (size + alignment - 1) / alignment * alignment;
  };
  while (notes.size() >= sizeof(Elf64_Nhdr)) {
    Elf64_Nhdr header;
    std::memcpy(&header, notes.data(), sizeof header);
    const std::size_t description = sizeof header + aligned(header.n_namesz);
    const std::size_t end = description + aligned(header.n_descsz);
    if (header.n_namesz > notes.size() || header.n_descsz > notes.size() || end > notes.size()) {
      return {};
    }
    if (header.n_type == NT_GNU_BUILD_ID &&
        notes.substr(sizeof header, header.n_namesz) == std::string_view("GNU\0", 4)) {
      return std::string(notes.substr(description, header.n_descsz));
    }
    notes.remove_prefix(end);
  }
  return {};
}

std::int64_t nanoseconds(const struct statx_timestamp& time) {
  return time.tv_sec * 1'000'000'000 + time.tv_nsec;
}

}  // namespace

FilesystemClass filesystem_class(std::uint64_t filesystem_type) {
  // f_type is signed, and file systems with the top bit set come back extended.
  const std::uint64_t type = filesystem_type & 0xffffffff;
  if (type == kHugetlbfs) {
    return FilesystemClass::kHugePages;
  }
  if (std::ranges::find(kLocal, type) != kLocal.end()) {
    return FilesystemClass::kLocal;
  }
  if (std::ranges::find(kNetwork, type) != kNetwork.end()) {
    return FilesystemClass::kNetwork;
  }
  return std::ranges::find(kKernel, type) != kKernel.end() ? FilesystemClass::kKernel
                                                           : FilesystemClass::kUnknown;
}

bool is_path(std::string_view text) {
  return text.starts_with('/') && text.size() < PATH_MAX &&
         text.find('\0') == std::string_view::npos;
}

std::string sha256(std::string_view bytes) {
  const DigestContext context = start_digest();
  EVP_DigestUpdate(context.get(), bytes.data(), bytes.size());
  return finish_digest(context);
}

Result<std::string> sha256_of_file(int fd) {
  constexpr std::size_t kChunkBytes = std::size_t{1} << 18;
  const DigestContext context = start_digest();
  std::vector<char> buffer(kChunkBytes);
  for (off_t offset = 0;;) {
    const ssize_t count = ::pread(fd, buffer.data(), buffer.size(), offset);
    if (count < 0 && errno == EINTR) {
      continue;
    }
    if (count < 0) {
      return fail(system_error("hash", "descriptor " + std::to_string(fd)));
    }
    if (count == 0) {
      return finish_digest(context);
    }
    EVP_DigestUpdate(context.get(), buffer.data(), static_cast<std::size_t>(count));
    offset += count;
  }
}

Result<std::string> read_build_id(int fd) {
  constexpr std::size_t kMaxHeaders = 256;
  constexpr std::size_t kMaxNoteBytes = std::size_t{1} << 16;
  Elf64_Ehdr header;
  if (!read_exactly(fd, &header, sizeof header, 0) ||
      std::memcmp(header.e_ident, ELFMAG, SELFMAG) != 0 || header.e_ident[EI_CLASS] != ELFCLASS64 ||
      header.e_phentsize != sizeof(Elf64_Phdr) || header.e_phnum > kMaxHeaders) {
    return std::string();
  }
  std::vector<Elf64_Phdr> segments(header.e_phnum);
  if (!read_exactly(fd, segments.data(), segments.size() * sizeof(Elf64_Phdr), header.e_phoff)) {
    return std::string();
  }
  for (const Elf64_Phdr& segment : segments) {
    if (segment.p_type != PT_NOTE || segment.p_filesz > kMaxNoteBytes) {
      continue;
    }
    std::string notes(segment.p_filesz, '\0');
    if (!read_exactly(fd, notes.data(), notes.size(), segment.p_offset)) {
      continue;
    }
    std::string build_id = find_build_id(notes, segment.p_align == 8 ? 8 : 4);
    if (!build_id.empty()) {
      return build_id;
    }
  }
  return std::string();
}

Result<std::uint64_t> filesystem_type_at(int directory, const std::string& name) {
  struct statfs filesystem {};
  const std::string path = "/proc/self/fd/" + std::to_string(directory) + "/" + name;
  const bool relative = !name.empty() && !name.starts_with('/');
  const int told = name.empty() ? ::fstatfs(directory, &filesystem)
                                : ::statfs(relative ? path.c_str() : name.c_str(), &filesystem);
  if (told != 0) {
    return fail(system_error("stat the file system of", name));
  }
  return static_cast<std::uint64_t>(filesystem.f_type);
}

Result<wire::FileIdentity> identify_at(int directory, const std::string& name,
                                       const std::string& path) {
  struct statx status {};
  const int flags = AT_STATX_SYNC_AS_STAT | (name.empty() ? AT_EMPTY_PATH : 0);
  if (::statx(directory, name.c_str(), flags, STATX_BASIC_STATS | STATX_BTIME, &status) != 0) {
    return fail(system_error("stat", path));
  }
  wire::FileIdentity identity;
  identity.set_path(path);
  identity.set_mode(status.stx_mode);
  identity.set_inode(status.stx_ino);
  // Of a device it is the device itself that must be the same, not where its node lies.
  const bool device = S_ISCHR(status.stx_mode) || S_ISBLK(status.stx_mode);
  identity.set_device_major(device ? status.stx_rdev_major : status.stx_dev_major);
  identity.set_device_minor(device ? status.stx_rdev_minor : status.stx_dev_minor);
  identity.set_size_bytes(status.stx_size);
  identity.set_mtime_ns(nanoseconds(status.stx_mtime));
  identity.set_ctime_ns(nanoseconds(status.stx_ctime));
  if ((status.stx_mask & STATX_BTIME) != 0) {
    identity.set_birth_ns(nanoseconds(status.stx_btime));
  }
  auto type = filesystem_type_at(directory, name);
  if (!type) {
    type.error().object = path;
    return fail(std::move(type).error());
  }
  identity.set_filesystem_type(*type);
  return identity;
}

Result<void> add_content_identity(int fd, std::uint64_t hash_limit_bytes,
                                  wire::FileIdentity& identity) {
  identity.set_build_id(MIGRATE_TRY(read_build_id(fd)));
  if (identity.build_id().empty() && identity.size_bytes() <= hash_limit_bytes) {
    identity.set_sha256(MIGRATE_TRY(sha256_of_file(fd)));
  }
  return {};
}

bool same_file(const wire::FileIdentity& one, const wire::FileIdentity& other) {
  return one.inode() == other.inode() && one.device_major() == other.device_major() &&
         one.device_minor() == other.device_minor();
}

bool unchanged(const wire::FileIdentity& before, const wire::FileIdentity& now) {
  return same_file(before, now) && before.size_bytes() == now.size_bytes() &&
         before.mtime_ns() == now.mtime_ns() && before.ctime_ns() == now.ctime_ns();
}

bool is_surely(const wire::FileIdentity& file, int fd) {
  auto here = identify_at(fd, "", file.path());
  if (!here || (here->mode() & S_IFMT) != (file.mode() & S_IFMT)) {
    return false;
  }
  if (S_ISCHR(file.mode())) {
    return file.device_major() == here->device_major() &&
           file.device_minor() == here->device_minor();
  }
  const bool of_network = filesystem_class(file.filesystem_type()) == FilesystemClass::kNetwork &&
                          file.filesystem_type() == here->filesystem_type() &&
                          file.inode() == here->inode();
  const bool births = file.birth_ns() != 0 && here->birth_ns() != 0;
  // An inode is used again, but never at the same nanosecond.
  if (births ? (of_network || same_file(file, *here)) && file.birth_ns() == here->birth_ns()
             : of_network || unchanged(file, *here)) {
    return true;
  }
  if (file.build_id().empty() && file.sha256().empty()) {
    return false;
  }
  const auto readable = open_file("/proc/self/fd/" + std::to_string(fd), O_RDONLY);
  if (!readable || file.size_bytes() != here->size_bytes()) {
    return false;
  }
  return file.build_id().empty()
             ? sha256_of_file(readable->get()).value_or(std::string()) == file.sha256()
             : read_build_id(readable->get()).value_or(std::string()) == file.build_id();
}

}  // namespace migrate
