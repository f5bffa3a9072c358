/* Runs a SavedModel with TensorFlow's C API: no Python, no Keras, and nothing
   of keras_embcomp in the process.

     predict FOLDER INPUT OUTPUT SECONDS SIZE... <input >output

   FOLDER is that of a version; INPUT and OUTPUT are the names of tensors that
   `saved_model_cli show --dir FOLDER --all` tells, and SIZE... the shape of the
   input, whose numbers are read as bytes. The model is run once, which prepares
   it, and then again and again for so many SECONDS. The bytes of the output are
   written, and to standard error one line of JSON: times in milliseconds, and
   the memory of the process that no file backs. */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tensorflow/c/c_api.h"

#define MOST_SIZES 8
#define MOST_RUNS 10000

static TF_Status *status;

static void fail(const char *what, const char *why) {
  fprintf(stderr, "%s: %s\n", what, why);
  exit(1);
}

static void check(const char *what) {
  if (TF_GetCode(status) != TF_OK) fail(what, TF_Message(status));
}

static double milliseconds(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * 1e3 + now.tv_nsec / 1e6;
}

static int ascending(const void *one, const void *other) {
  double difference = *(const double *)one - *(const double *)other;
  return (difference > 0) - (difference < 0);
}

static TF_Output tensor_named(TF_Graph *graph, const char *name) {
  char operation[512];
  snprintf(operation, sizeof operation, "%s", name);
  char *colon = strrchr(operation, ':');
  int index = 0;
  if (colon) {
    index = atoi(colon + 1);
    *colon = '\0';
  }
  TF_Output found = {TF_GraphOperationByName(graph, operation), index};
  if (!found.oper || index < 0 || index >= TF_OperationNumOutputs(found.oper))
    fail("no such tensor", name);
  return found;
}

static long anonymous_bytes(void) {
  char line[256];
  long kilobytes = -1;
  FILE *file = fopen("/proc/self/status", "r");
  while (file && fgets(line, sizeof line, file))
    if (sscanf(line, "RssAnon: %ld", &kilobytes) == 1) break;
  if (file) fclose(file);
  return 1024 * kilobytes;
}

int main(int count, char **arguments) {
  if (count < 6 || count > 5 + MOST_SIZES)
    fail("usage", "predict FOLDER INPUT OUTPUT SECONDS SIZE...");
  const char *tags[] = {"serve"};
  status = TF_NewStatus();
  TF_Graph *graph = TF_NewGraph();
  double start = milliseconds();
  TF_Session *session = TF_LoadSessionFromSavedModel(
      TF_NewSessionOptions(), NULL, arguments[1], tags, 1, graph, NULL, status);
  check("load");
  double load = milliseconds() - start;
  TF_Output input = tensor_named(graph, arguments[2]);
  TF_Output output = tensor_named(graph, arguments[3]);
  double limit = 1e3 * atof(arguments[4]);

  int64_t sizes[MOST_SIZES];
  TF_DataType type = TF_OperationOutputType(input);
  size_t bytes = TF_DataTypeSize(type);
  for (int i = 5; i < count; i++) bytes *= sizes[i - 5] = atoll(arguments[i]);
  TF_Tensor *given = TF_AllocateTensor(type, sizes, count - 5, bytes);
  if (fread(TF_TensorData(given), 1, bytes, stdin) != bytes)
    fail("input", "fewer bytes than the shape has");

  TF_Tensor *result = NULL;
  static double times[1 + MOST_RUNS]; /* the first one is apart */
  int runs = 0;
  double begun = milliseconds();
  do {
    if (result) TF_DeleteTensor(result);
    start = milliseconds();
    TF_SessionRun(session, NULL, &input, &given, 1, &output, &result, 1, NULL,
                  0, NULL, status);
    check("run");
    times[runs++] = milliseconds() - start;
    if (runs == 1) begun = milliseconds();
  } while (runs <= MOST_RUNS && milliseconds() - begun < limit);
  fwrite(TF_TensorData(result), 1, TF_TensorByteSize(result), stdout);
  double *later = times + (runs > 1);
  runs -= runs > 1;
  double first_time = times[0];
  qsort(later, runs, sizeof *times, ascending);
  fprintf(stderr,
          "{\"tensorflow\": \"%s\", \"load_ms\": %.2f, \"first_ms\": %.2f, "
          "\"median_ms\": %.4f, \"least_ms\": %.4f, "
          "\"anonymous_bytes\": %ld}\n",
          TF_Version(), load, first_time, later[runs / 2], later[0],
          anonymous_bytes());
  return 0;
}
