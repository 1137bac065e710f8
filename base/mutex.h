#pragma once

#include <mutex>

#if defined(__clang__)
#define MIGRATE_ATTRIBUTE(x) __attribute__((x))
#else
#define MIGRATE_ATTRIBUTE(x)
#endif
#define MIGRATE_GUARDED_BY(x) MIGRATE_ATTRIBUTE(guarded_by(x))
#define MIGRATE_REQUIRES(x) MIGRATE_ATTRIBUTE(requires_capability(x))

namespace migrate {

/// std::mutex with clang's thread-safety annotations, which libstdc++'s own lacks.
class MIGRATE_ATTRIBUTE(capability("mutex")) Mutex {
 public:
  void lock() MIGRATE_ATTRIBUTE(acquire_capability()) { mutex_.lock(); }
  void unlock() MIGRATE_ATTRIBUTE(release_capability()) { mutex_.unlock(); }

 private:
  std::mutex mutex_;
};

/// Holds a Mutex for a scope.
class MIGRATE_ATTRIBUTE(scoped_lockable) MutexLock {
 public:
  explicit MutexLock(Mutex& mutex) MIGRATE_ATTRIBUTE(acquire_capability(mutex)) : mutex_(mutex) {
    mutex_.lock();
  }
  ~MutexLock() MIGRATE_ATTRIBUTE(release_capability()) { mutex_.unlock(); }
  MutexLock(const MutexLock&) = delete;
  MutexLock& operator=(const MutexLock&) = delete;

 private:
  Mutex& mutex_;
};

}  // namespace migrate
