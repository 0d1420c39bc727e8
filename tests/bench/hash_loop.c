/* The floor of a full verify: every core takes the next file of a list, reads it and hashes it. No checks, no lock, no order. */
#include <fcntl.h>
#include <openssl/evp.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char *names[100000];
static int count;
static atomic_int next_name;

static void *work(void *unused) {
  static _Thread_local unsigned char buffer[256 << 10];
  EVP_MD_CTX *context = EVP_MD_CTX_new();
  unsigned char digest[32];
  (void)unused;
  for (int i; (i = atomic_fetch_add(&next_name, 1)) < count;) {
    int fd = open(names[i], O_RDONLY);
    ssize_t got;
    if (fd < 0) exit(1);
    EVP_DigestInit_ex(context, EVP_sha256(), NULL);
    while ((got = read(fd, buffer, sizeof buffer)) > 0) EVP_DigestUpdate(context, buffer, (size_t)got);
    if (got < 0) exit(1);
    EVP_DigestFinal_ex(context, digest, NULL);
    close(fd);
  }
  EVP_MD_CTX_free(context);
  return NULL;
}

int main(int argc, char **argv) {
  char line[4096];
  FILE *list = argc == 2 ? fopen(argv[1], "r") : NULL;
  long cores = sysconf(_SC_NPROCESSORS_ONLN);
  pthread_t threads[256];
  if (!list) return 64;
  while (count < 100000 && fgets(line, sizeof line, list)) {
    line[strcspn(line, "\n")] = 0;
    names[count++] = strdup(line);
  }
  if (cores > 256) cores = 256;
  for (long i = 0; i < cores; ++i) pthread_create(&threads[i], NULL, work, NULL);
  for (long i = 0; i < cores; ++i) pthread_join(threads[i], NULL);
  return 0;
}
