// jail-probe VERB WORDS...: shows, inside a jail, that something works that is loaded at run time. One line
// on stdout; status 0: it does. 1: it does not. 64: no such verb.
//
// Run in the jail's own tree, by its loader: so it needs nothing but libc (the C++ library is not linked),
// and looks everything else up by dlopen, as the daemons do. What it calls is declared here: the headers of
// libcrypto, libpam and the others are not needed to build it.
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <iconv.h>
#include <langinfo.h>
#include <link.h>
#include <locale.h>
#include <netdb.h>
#include <pthread.h>
#include <pwd.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <wctype.h>

namespace {

constexpr int ok = 0;
constexpr int failed = 1;
constexpr int usage = 64;

[[gnu::format(printf, 2, 3)]] int say(int status, const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  vprintf(format, arguments);
  va_end(arguments);
  putchar('\n');
  return status;
}

/// The function `name` of a library that is loaded already; a jail-probe that finds none is no use.
template <class Function>
Function* find(void* library, const char* name) {
  void* symbol = dlsym(library, name);
  if (symbol == nullptr) exit(say(failed, "%s", dlerror()));
  return reinterpret_cast<Function*>(symbol);
}

void* load(const char* name) {
  void* library = dlopen(name, RTLD_NOW | RTLD_GLOBAL);
  if (library == nullptr) exit(say(failed, "%s", dlerror()));
  return library;
}

// ---- the C library
// ----------------------------------------------------------------------------------------------

int user(int, char** words) {
  errno = 0;
  const passwd* found = getpwnam(words[0]);
  if (found == nullptr) return say(failed, "getpwnam does not find %s", words[0]);
  return say(ok, "%s is user %u", words[0], found->pw_uid);
}

int host(int, char** words) {
  addrinfo* found = nullptr;
  const int error = getaddrinfo(words[0], nullptr, nullptr, &found);
  if (error != 0) return say(failed, "getaddrinfo of %s: %s", words[0], gai_strerror(error));
  freeaddrinfo(found);
  return say(ok, "getaddrinfo finds %s", words[0]);
}

int service(int, char** words) {
  const servent* found = getservbyname(words[0], words[1]);
  if (found == nullptr) return say(failed, "getservbyname does not find %s/%s", words[0], words[1]);
  const int port = (found->s_port & 0xff) << 8 | (found->s_port >> 8 & 0xff);
  return say(port == atoi(words[2]) ? ok : failed, "%s/%s is port %d", words[0], words[1], port);
}

/// In nothing but futex(2), which every daemon with threads may call.
void* sleep_on(void*) {
  static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
  static pthread_cond_t never = PTHREAD_COND_INITIALIZER;
  pthread_mutex_lock(&mutex);
  for (;;) pthread_cond_wait(&never, &mutex);
}

/// glibc aborts here where libgcc_s is missing.
int thread_cancel(int, char**) {
  pthread_t thread{};
  void* end = nullptr;
  if (pthread_create(&thread, nullptr, sleep_on, nullptr) != 0) return say(failed, "pthread_create fails");
  if (pthread_cancel(thread) != 0 || pthread_join(thread, &end) != 0 || end != PTHREAD_CANCELED)
    return say(failed, "a cancelled thread did not end so");
  return say(ok, "a thread was cancelled");
}

bool convert(const char* to, const char* from, const char* text, char* out, size_t size) {
  iconv_t conversion = iconv_open(to, from);
  if (conversion == reinterpret_cast<iconv_t>(-1)) return false;
  char* in = const_cast<char*>(text);
  size_t left = strlen(text);
  const bool good = iconv(conversion, &in, &left, &out, &size) == 0;
  iconv_close(conversion);
  *out = '\0';
  return good;
}

int charset(int, char** words) {
  const char* text = "jail";
  char there[64];
  char back[64];
  if (!convert(words[0], "UTF-8", text, there, sizeof there - 1) ||
      !convert("UTF-8", words[0], there, back, sizeof back - 1) || strcmp(back, text) != 0)
    return say(failed, "iconv cannot convert between UTF-8 and %s", words[0]);
  return say(ok, "iconv converts between UTF-8 and %s", words[0]);
}

bool ends_with(const char* text, const char* end) {
  const size_t length = strlen(text);
  const size_t tail = strlen(end);
  return length >= tail && strcmp(text + length - tail, end) == 0;
}

/// What is wrong with a locale, or nullptr. That it can be loaded says little of its tables: so they are
/// asked.
const char* wrong_with(const char* name) {
  const locale_t found = newlocale(LC_ALL_MASK, name, nullptr);
  if (found == nullptr) return "cannot be loaded";
  const char* wrong = nullptr;
  if (strcmp(nl_langinfo_l(CODESET, found), "UTF-8") != 0) {
    if (ends_with(name, ".utf8") || ends_with(name, ".UTF-8")) wrong = "has other characters than UTF-8";
  } else if (towupper_l(0xe9, found) != 0xc9 || iswalpha_l(0x4e2d, found) == 0) {
    wrong = "does not know its letters";
  }
  freelocale(found);
  return wrong;
}

constexpr const char* locales = "/usr/lib/locale";

/// Those that stand in the tree as a directory each.
int try_directories() {
  DIR* folder = opendir(locales);
  if (folder == nullptr) return 0;  // what was asked for by name is in an archive, or built in
  int count = 0;
  while (const dirent* entry = readdir(folder)) {
    if (entry->d_name[0] == '.' || strcmp(entry->d_name, "locale-archive") == 0) continue;
    if (const char* wrong = wrong_with(entry->d_name))
      exit(say(failed, "%s/%s %s", locales, entry->d_name, wrong));
    ++count;
  }
  closedir(folder);
  return count;
}

size_t read_at(FILE* file, uint32_t offset, void* record, size_t size) {
  return fseek(file, static_cast<long>(offset), SEEK_SET) == 0 ? fread(record, 1, size, file) : 0;
}

/// Those of locale-archive (glibc's locarchive.h): a hash table of names.
int try_archive() {
  struct Head {
    uint32_t magic, serial, names, used, size;
  } head{};
  struct Name {
    uint32_t hash, text, record;
  } name{};
  constexpr uint32_t magic = 0xde020109;
  FILE* archive = fopen("/usr/lib/locale/locale-archive", "re");
  if (archive == nullptr) return 0;
  if (read_at(archive, 0, &head, sizeof head) != sizeof head || head.magic != magic)
    exit(say(failed, "locale-archive is none"));
  int count = 0;
  for (uint32_t i = 0; i < head.size; ++i) {
    if (read_at(archive, head.names + i * uint32_t{sizeof name}, &name, sizeof name) != sizeof name)
      exit(say(failed, "locale-archive ends early"));
    if (name.hash == 0 || name.record == 0) continue;
    char text[256] = {};
    if (read_at(archive, name.text, text, sizeof text - 1) == 0)
      exit(say(failed, "locale-archive ends early"));
    if (const char* wrong = wrong_with(text)) exit(say(failed, "%s of locale-archive %s", text, wrong));
    ++count;
  }
  fclose(archive);
  return count;
}

/// The one that is asked for, and all that the tree has.
int locale(int, char** words) {
  if (const char* wrong = wrong_with(words[0])) return say(failed, "the locale %s %s", words[0], wrong);
  const int directories = try_directories();
  return say(ok, "%s and all locales of the tree can be used: %d", words[0], directories + try_archive());
}

int local_time(int, char**) {
  char magic[4] = {};
  FILE* file = fopen("/etc/localtime", "re");
  if (file == nullptr) return say(failed, "/etc/localtime: %s", strerror(errno));
  const bool zone = fread(magic, 1, sizeof magic, file) == sizeof magic && memcmp(magic, "TZif", 4) == 0;
  fclose(file);
  if (!zone) return say(failed, "/etc/localtime is no time zone");
  unsetenv("TZ");
  tzset();
  return say(ok, "/etc/localtime is %s", tzname[0]);
}

int zone(int, char** words) {
  constexpr time_t noon_in_january = 1736942400;
  setenv("TZ", words[0], 1);
  tzset();
  tm time{};
  localtime_r(&noon_in_january, &time);
  return say(time.tm_gmtoff == atol(words[1]) ? ok : failed, "%s is %ld seconds ahead of UTC", words[0],
             time.tm_gmtoff);
}

// ---- OpenSSL and GnuTLS
// -----------------------------------------------------------------------------------------

constexpr const char* libcrypto = "libcrypto.so.3";

int in_openssl(void* library, const char* path) {
  void* store = find<void*()>(library, "X509_STORE_new")();
  if (find<int(void*, const char*)>(library, "X509_STORE_load_file")(store, path) != 1) return -1;
  return find<int(void*)>(library,
                          "OPENSSL_sk_num")(find<void*(void*)>(library, "X509_STORE_get0_objects")(store));
}

int in_gnutls(void* library, const char* path) {
  void* credentials = nullptr;
  if (find<int(void**)>(library, "gnutls_certificate_allocate_credentials")(&credentials) != 0) return -1;
  constexpr int pem = 1;
  return find<int(void*, const char*, int)>(library, "gnutls_certificate_set_x509_trust_file")(credentials,
                                                                                               path, pem);
}

int certificates(int, char** words) {
  int count = -1;
  const char* by = "OpenSSL";
  if (void* openssl = dlopen(libcrypto, RTLD_NOW)) {
    count = in_openssl(openssl, words[0]);
  } else if (void* gnutls = dlopen("libgnutls.so.30", RTLD_NOW)) {
    by = "GnuTLS";
    count = in_gnutls(gnutls, words[0]);
  } else {
    return say(failed, "neither OpenSSL nor GnuTLS is here to load %s", words[0]);
  }
  if (count < 0) return say(failed, "%s cannot load %s", by, words[0]);
  return say(count >= atoi(words[1]) ? ok : failed, "%s loads %d certificates", by, count);
}

int provider(int count, char** words) {
  void* library = load(libcrypto);
  auto* const load_provider = find<void*(void*, const char*)>(library, "OSSL_PROVIDER_load");
  for (int i = 0; i < count; ++i) {
    if (load_provider(nullptr, words[i]) == nullptr)
      return say(failed, "OpenSSL cannot load the provider %s", words[i]);
    // A digest that it alone has.
    const char* digest = strcmp(words[i], "legacy") == 0 ? "MD4" : "SHA256";
    auto* const fetch = find<void*(void*, const char*, const char*)>(library, "EVP_MD_fetch");
    if (fetch(nullptr, digest, nullptr) == nullptr)
      return say(failed, "OpenSSL finds no %s in the provider %s", digest, words[i]);
  }
  return say(ok, "OpenSSL loads %s%s", words[0], count > 1 ? " and more" : "");
}

// ---- modules
// ----------------------------------------------------------------------------------------------------

struct Wanted {
  const char* name;
  bool loaded;
};

const char* base_name(const char* path) {
  const char* slash = strrchr(path, '/');
  return slash == nullptr ? path : slash + 1;
}

int compare(dl_phdr_info* info, size_t, void* data) {
  auto* wanted = static_cast<Wanted*>(data);
  wanted->loaded = wanted->loaded || strcmp(base_name(info->dlpi_name), wanted->name) == 0;
  return 0;
}

/// The first of `paths` that is not among the loaded objects.
const char* not_loaded(int count, char** paths) {
  for (int i = 0; i < count; ++i) {
    Wanted wanted{base_name(paths[i]), false};
    dl_iterate_phdr(compare, &wanted);
    if (!wanted.loaded) return paths[i];
  }
  return nullptr;
}

int load_all(int count, char** words) {
  for (int i = 0; i < count; ++i) (void)load(words[i]);
  return say(ok, "%s%s loaded", base_name(words[count - 1]), count > 1 ? " and others are" : " is");
}

/// Whether `symbol` stands in the file, as it does in the symbol table of the program that defines it.
bool has_name(const char* file, const char* symbol) {
  FILE* program = fopen(file, "re");
  if (program == nullptr) return false;
  const size_t length = strlen(symbol) + 1;
  size_t matched = 0;
  for (int byte = 0; matched < length && (byte = fgetc(program)) != EOF;)
    matched = byte == static_cast<unsigned char>(symbol[matched]) ? matched + 1 : (byte == symbol[0] ? 1 : 0);
  fclose(program);
  return matched == length;
}

/// What a module misses, when that is a function of its own program; else nothing.
const char* left_to_program(const char* program, char* error) {
  constexpr const char* undefined = "undefined symbol: ";
  char* symbol = strstr(error, undefined);
  if (symbol == nullptr) return nullptr;
  symbol += strlen(undefined);
  symbol[strcspn(symbol, ", ")] = '\0';
  return has_name(program, symbol) ? symbol : nullptr;
}

/// PROGRAM LIBRARY... -- MODULE...: modules of a program that cannot be loaded without it. What it needs is
/// loaded from the start, as it would be there: so we execute ourselves once more, with it preloaded.
int load_for(int count, char** words) {
  int modules = 1;
  while (modules < count && strcmp(words[modules], "--") != 0) ++modules;
  if (getenv("LD_PRELOAD") == nullptr) {
    static char needed[1 << 16];
    for (int i = 1; i < modules; ++i) {
      if (strlen(needed) + strlen(words[i]) + 2 > sizeof needed) return say(failed, "too many libraries");
      strcat(strcat(needed, words[i]), ":");
    }
    setenv("LD_PRELOAD", needed, 1);
    execv(words[-2], words - 2);
    return say(failed, "exec: %s", strerror(errno));
  }
  for (int i = modules + 1; i < count; ++i) {
    if (dlopen(words[i], RTLD_NOW | RTLD_GLOBAL) != nullptr) continue;
    char error[1024];
    snprintf(error, sizeof error, "%s", dlerror());
    if (left_to_program(words[0], error) == nullptr) return say(failed, "%s", error);
  }
  return say(ok, "%s%s loaded", base_name(words[count - 1]), count > modules + 2 ? " and others are" : " is");
}

int sasl(int, char** words) {
  void* library = load("libsasl2.so.2");
  if (find<int(const void*, const char*)>(library, "sasl_server_init")(nullptr, "jail-probe") != 0)
    return say(failed, "sasl_server_init fails");
  const char** offered = find<const char**()>(library, "sasl_global_listmech")();
  for (; offered != nullptr && *offered != nullptr; ++offered)
    if (strcmp(*offered, words[0]) == 0) return say(ok, "libsasl2 offers %s", words[0]);
  return say(failed, "libsasl2 does not offer %s", words[0]);
}

int converse(int, const void**, void**, void*) {
  constexpr int pam_conv_err = 19;
  return pam_conv_err;
}

/// pam_start reads the service's file and loads its modules; what cannot be loaded it only logs.
int pam(int count, char** words) {
  struct Conversation {
    int (*converse)(int, const void**, void**, void*);
    void* data;
  };
  void* library = load("libpam.so.0");
  auto* const start = find<int(const char*, const char*, const Conversation*, void**)>(library, "pam_start");
  DIR* services = opendir("/etc/pam.d");
  if (services == nullptr) return say(failed, "/etc/pam.d: %s", strerror(errno));
  const Conversation conversation{converse, nullptr};
  while (const dirent* service = readdir(services)) {
    void* handle = nullptr;
    if (service->d_name[0] == '.' || strncmp(service->d_name, "common-", 7) == 0) continue;
    if (start(service->d_name, "nobody", &conversation, &handle) != 0)
      return say(failed, "pam_start of %s fails", service->d_name);
  }
  if (const char* missing = not_loaded(count, words)) return say(failed, "PAM does not load %s", missing);
  return say(ok, "PAM loads %s%s", base_name(words[0]), count > 1 ? " and others" : "");
}

int p11_kit(int count, char** words) {
  void* library = load("libp11-kit.so.0");
  void** modules = find<void**(int)>(library, "p11_kit_modules_load_and_initialize")(0);
  if (modules == nullptr || *modules == nullptr) return say(failed, "p11-kit loads no module");
  if (const char* missing = not_loaded(count, words)) return say(failed, "p11-kit does not load %s", missing);
  return say(ok, "p11-kit loads %s%s", base_name(words[0]), count > 1 ? " and others" : "");
}

struct Verb {
  const char* name;
  int least;  ///< words behind it
  int most;
  int (*run)(int count, char** words);
};
constexpr int any = 1 << 16;
constexpr Verb verbs[] = {
    {"certificates", 2, 2, certificates},
    {"host", 1, 1, host},
    {"iconv", 1, 1, charset},
    {"load", 1, any, load_all},
    {"load-for", 3, any, load_for},
    {"locale", 1, 1, locale},
    {"localtime", 0, 0, local_time},
    {"p11-kit", 1, any, p11_kit},
    {"pam", 1, any, pam},
    {"provider", 1, any, provider},
    {"sasl", 1, 1, sasl},
    {"service", 3, 3, service},
    {"thread-cancel", 0, 0, thread_cancel},
    {"user", 1, 1, user},
    {"zone", 2, 2, zone},
};

}  // namespace

int main(int argc, char** argv) {
  for (const Verb& verb : verbs) {
    const int count = argc - 2;
    if (argc < 2 || strcmp(argv[1], verb.name) != 0) continue;
    if (count < verb.least || count > verb.most) return say(usage, "%s: wrong number of words", verb.name);
    return verb.run(count, argv + 2);
  }
  return say(usage, "no such verb");
}
