/// Functions of a program that run at other hosts, in C++. Part of migrate.hpp, which programs
/// include.
///
///   auto area = migrate::async("hostB", [&] { return integrate(field); });
///   ... area.get();
///   const std::vector<double> areas = migrate::map({"hostB", "hostC"}, fields, integrate);
///
/// The function is called in a copy of this process, made by fork(2): what it has captured, by
/// reference, too, it sees as of now, and what it changes there stays there. Its value or its
/// exception comes home (migrate::codec). What migrate_spawn() says holds here.
#pragma once

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <libmigrate/migrate_codec.hpp>
#include <libmigrate/migrate_exceptions.hpp>
#include <libmigrate/migrate_result.hpp>
#include <memory>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

namespace migrate {

/// A function that runs elsewhere, and what comes of it. Move-only; for one thread at a time. Its
/// destructor waits for nothing: if the function has not returned, its process is killed.
template <class Value>
class task {
 public:
  explicit task(migrate_task* owned) noexcept : owned_(owned) {}

  /// False once get() was called.
  bool valid() const noexcept { return owned_ != nullptr; }
  /// The child, here at home.
  pid_t pid() const noexcept { return migrate_task_pid(owned_.get()); }

  void wait() { static_cast<void>(migrate_task_wait(owned_.get(), -1, nullptr)); }
  /// Whether get() would not wait, after that time at most.
  bool wait_for(seconds time) {
    return migrate_task_wait(owned_.get(), std::max(time.count(), 0.0), nullptr) != MIGRATE_TIMEOUT;
  }

  /// Waits for the function. Its value, or what it has thrown: exceptions of the standard library
  /// as what they are, others as remote_error. Throws error if it was not moved, and so not called
  /// (MIGRATE_REFUSED, with the refusals; MIGRATE_FAILED, MIGRATE_ERROR), or has not returned
  /// (MIGRATE_LOST). Once only.
  Value get() {
    const std::unique_ptr<migrate_task, deleter> ended = std::move(owned_);
    migrate_result* came_to = nullptr;
    static_cast<void>(migrate_task_wait(ended.get(), -1, &came_to));
    detail::done(result(came_to));
    std::size_t size = 0;
    const void* const output = migrate_task_output(ended.get(), &size);
    decoder from(std::string_view(static_cast<const char*>(output), size));
    if (codec<bool>::read(from)) {
      detail::rethrow(codec<detail::thrown>::read(from));
    }
    if constexpr (!std::is_void_v<Value>) {
      return codec<Value>::read(from);
    }
  }

  migrate_task* handle() const noexcept { return owned_.get(); }

 private:
  struct deleter {
    void operator()(migrate_task* each) const noexcept { migrate_task_free(each); }
  };
  std::unique_ptr<migrate_task, deleter> owned_;
};

namespace detail {

inline void write_all(int descriptor, std::string_view bytes) noexcept {
  while (!bytes.empty()) {
    const ssize_t count = ::write(descriptor, bytes.data(), bytes.size());
    if (count < 0 && errno != EINTR) {
      return;  // Nobody reads it any more.
    }
    bytes.remove_prefix(count > 0 ? static_cast<std::size_t>(count) : 0);
  }
}

/// In the copy: calls the function, to which `data` points twice, and writes what comes of it.
template <class Function>
void run_task(int output, void* data) {
  using value = std::decay_t<std::invoke_result_t<Function&>>;
  Function& function = **static_cast<Function**>(data);
  encoder to;
  try {
    if constexpr (std::is_void_v<value>) {
      function();
      codec<bool>::write(to, false);
    } else {
      const value came = function();
      codec<bool>::write(to, false);
      codec<value>::write(to, came);
    }
  } catch (...) {
    to = encoder();
    codec<bool>::write(to, true);
    codec<thrown>::write(to, current_thrown());
  }
  write_all(output, to.written());
}

}  // namespace detail

/// Calls `function` at `host`. Throws error if there is no room for a process; that it cannot be
/// moved, get() throws.
template <class Function>
auto async(const std::string& host, Function&& function, const options& wanted = {}) {
  using callable = std::remove_reference_t<Function>;
  using value = std::decay_t<std::invoke_result_t<callable&>>;
  migrate_task* begun = nullptr;
  callable* pointer = std::addressof(function);
  detail::done(detail::call(wanted, [&](const migrate_options* given, migrate_result** came_to) {
    return migrate_spawn(host.c_str(), detail::run_task<callable>, &pointer, given, &begun,
                         came_to);
  }));
  return task<value>(begun);
}

}  // namespace migrate
