#include "bench/row.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <sched.h>
#include <string.h>
#include <sys/utsname.h>
#include <time.h>

/* The build writes it; a program built by hand does not know its commit. */
#if __has_include("bench/commit.h")
#include "bench/commit.h"
#else
#define PETAL_COMMIT "unknown"
#endif

struct machine {
	char cpu[128];
	int cpus;
	struct utsname kernel;
	bool hugepages;
	char date[32];
};

void petal_row_init(struct petal_row *row, const char *bench)
{
	memset(row, 0, sizeof(*row));
	row->bench = bench;
	row->question = "";
	row->impl = "";
	row->wait = "sleep";
	row->level = "none";
	row->version = "";
	row->note = "";
	row->producers = 1;
	row->consumers = 1;
	row->window = 1;
}

void petal_row_take(struct petal_row *row,
		    const struct petal_histogram *histogram)
{
	row->n = histogram->count;
	row->p50_ns = petal_histogram_quantile(histogram, PETAL_HISTOGRAM_P50);
	row->p99_ns = petal_histogram_quantile(histogram, PETAL_HISTOGRAM_P99);
	row->p999_ns =
		petal_histogram_quantile(histogram, PETAL_HISTOGRAM_P999);
	row->max_ns = histogram->max;
}

static void print_string(FILE *out, const char *text)
{
	fputc('"', out);
	for (; *text; text++) {
		unsigned char c = (unsigned char)*text;

		if (c == '"' || c == '\\')
			fprintf(out, "\\%c", c);
		else if (c < 0x20 || c == 0x7f)
			fprintf(out, "\\u%04x", c);
		else
			fputc(c, out);
	}
	fputc('"', out);
}

static void print_key_string(FILE *out, const char *key, const char *text)
{
	fprintf(out, ",\"%s\":", key);
	print_string(out, text);
}

static void print_key_bool(FILE *out, const char *key, bool value)
{
	fprintf(out, ",\"%s\":%s", key, value ? "true" : "false");
}

static void print_key_count(FILE *out, const char *key, uint64_t value)
{
	fprintf(out, ",\"%s\":%" PRIu64, key, value);
}

/* A locale may write 1,5 and JSON may not, hence the fraction by hand. */
static void print_key_parts(FILE *out, const char *key, double value,
			    int digits)
{
	uint64_t scale = 1;
	uint64_t parts;

	for (int i = 0; i < digits; i++)
		scale *= 10;
	/* Also catches what is not a number, which JSON cannot hold. */
	if (!(value > 0 && value < 1e15))
		value = 0;
	parts = (uint64_t)(value * (double)scale + 0.5);
	fprintf(out, ",\"%s\":%" PRIu64 ".%0*" PRIu64, key, parts / scale,
		digits, parts % scale);
}

static void print_key_fraction(FILE *out, const char *key, double value)
{
	print_key_parts(out, key, value, 3);
}

static void print_json(FILE *out, const struct petal_row *row)
{
	fputs("{\"bench\":", out);
	print_string(out, row->bench);
	print_key_string(out, "case", row->question);
	print_key_string(out, "impl", row->impl);
	print_key_bool(out, "peer", row->peer);
	print_key_bool(out, "floor", row->floor);
	print_key_count(out, "bytes", row->bytes);
	print_key_count(out, "producers", row->producers);
	print_key_count(out, "consumers", row->consumers);
	print_key_count(out, "window", row->window);
	print_key_string(out, "wait", row->wait);
	print_key_string(out, "level", row->level);
	print_key_count(out, "rounds", row->rounds);
	print_key_count(out, "n", row->n);
	print_key_count(out, "p50_ns", row->p50_ns);
	print_key_count(out, "p99_ns", row->p99_ns);
	print_key_count(out, "p999_ns", row->p999_ns);
	print_key_count(out, "max_ns", row->max_ns);
	print_key_fraction(out, "msgs_per_s", row->msgs_per_s);
	print_key_fraction(out, "cpu_ns_per_msg", row->cpu_ns_per_msg);
	print_key_fraction(out, "floor_ratio", row->floor_ratio);
	print_key_string(out, "version", row->version);
	print_key_string(out, "note", row->note);
	fputs("}\n", out);
}

/* From how many producers to how many consumers, and how many at a time. */
static void print_heading(FILE *out)
{
	fprintf(out,
		"%-8s %-11s %-14s %-5s %-5s %7s %5s %6s %9s %9s %9s %9s %10s"
		" %10s %10s %8s  %s\n",
		"bench", "case", "impl", "wait", "level", "bytes", "N:M",
		"window", "n", "p50 us", "p99 us", "p99.9 us", "max us",
		"msgs/s", "cpu us/msg", "x floor", "version; note");
}

/* A bench of rates has no latencies. */
static void print_us(FILE *out, const struct petal_row *row, int width,
		     uint64_t ns)
{
	if (row->n > 0 && row->max_ns > 0)
		fprintf(out, " %*.2f", width, (double)ns / 1e3);
	else
		fprintf(out, " %*s", width, "-");
}

static void print_text(FILE *out, const struct petal_row *row)
{
	fprintf(out,
		"%-8s %-11s %-14s %-5s %-5s %7" PRIu64 " %2u:%-2u %6u"
		" %9" PRIu64,
		row->bench, *row->question ? row->question : "-", row->impl,
		row->wait, row->level, row->bytes, row->producers,
		row->consumers, row->window, row->n);
	print_us(out, row, 9, row->p50_ns);
	print_us(out, row, 9, row->p99_ns);
	print_us(out, row, 9, row->p999_ns);
	print_us(out, row, 10, row->max_ns);
	if (row->n > 0)
		fprintf(out, " %10.0f %10.3f %8.2f", row->msgs_per_s,
			row->cpu_ns_per_msg / 1e3, row->floor_ratio);
	else
		fprintf(out, " %10s %10s %8s", "-", "-", "-");
	fprintf(out, "  %s%s%s\n", row->version,
		*row->version && *row->note ? "; " : "", row->note);
}

/* A row that did not reach its reader must not look like one that did. */
static int flush(FILE *out)
{
	errno = 0;
	if (fflush(out) != 0 || ferror(out))
		return errno ? -errno : -EIO;
	return 0;
}

int petal_row_print(struct petal_row_sink *sink, const struct petal_row *row)
{
	if (sink->json) {
		print_json(sink->out, row);
		return flush(sink->out);
	}
	if (!sink->headed)
		print_heading(sink->out);
	sink->headed = true;
	print_text(sink->out, row);
	return flush(sink->out);
}

static void print_usl_json(FILE *out, const struct petal_row *row,
			   unsigned points, const struct petal_usl *usl)
{
	fputs("{\"usl\":{\"bench\":", out);
	print_string(out, row->bench);
	print_key_string(out, "case", row->question);
	print_key_string(out, "impl", row->impl);
	print_key_bool(out, "peer", row->peer);
	print_key_count(out, "bytes", row->bytes);
	print_key_count(out, "window", row->window);
	print_key_string(out, "wait", row->wait);
	print_key_count(out, "points", points);
	print_key_fraction(out, "lambda_per_s", usl->lambda);
	print_key_parts(out, "sigma", usl->sigma, 6);
	print_key_parts(out, "kappa", usl->kappa, 6);
	print_key_fraction(out, "error", usl->error);
	fputs("}}\n", out);
}

int petal_row_usl_print(struct petal_row_sink *sink,
			const struct petal_row *row, unsigned points,
			const struct petal_usl *usl)
{
	if (sink->json)
		print_usl_json(sink->out, row, points, usl);
	else
		fprintf(sink->out,
			"%-8s %-11s %-14s %-5s window %-3u sigma %.4f, kappa "
			"%.5f, lambda %.2f M/s; %u rows, off by %.0f %% at "
			"most\n",
			row->bench, *row->question ? row->question : "-",
			row->impl, row->wait, row->window, usl->sigma,
			usl->kappa, usl->lambda / 1e6, points,
			usl->error * 100);
	return flush(sink->out);
}

/* Not every architecture has a model name; its own name is better than none. */
static void read_cpu(struct machine *machine)
{
	FILE *file = fopen("/proc/cpuinfo", "re");
	char line[512];

	snprintf(machine->cpu, sizeof(machine->cpu), "%.120s",
		 machine->kernel.machine);
	if (!file)
		return;
	while (fgets(line, sizeof(line), file)) {
		char *value = strstr(line, ": ");

		if (!value || strncmp(line, "model name", 10) != 0)
			continue;
		value[strcspn(value, "\n")] = '\0';
		snprintf(machine->cpu, sizeof(machine->cpu), "%.120s",
			 value + 2);
		break;
	}
	fclose(file);
}

static int read_cpus(void)
{
	cpu_set_t set;

	if (sched_getaffinity(0, sizeof(set), &set) != 0)
		return 0;
	return CPU_COUNT(&set);
}

static bool read_pool(const char *size)
{
	char path[PATH_MAX];
	unsigned long pages = 0;
	FILE *file;

	snprintf(path, sizeof(path), "/sys/kernel/mm/hugepages/%s/nr_hugepages",
		 size);
	file = fopen(path, "re");
	if (!file)
		return false;
	if (fscanf(file, "%lu", &pages) != 1)
		pages = 0;
	fclose(file);
	return pages > 0;
}

static bool read_hugepages(void)
{
	DIR *dir = opendir("/sys/kernel/mm/hugepages");
	struct dirent *entry;
	bool any = false;

	if (!dir)
		return false;
	while (!any && (entry = readdir(dir)))
		any = entry->d_name[0] != '.' && read_pool(entry->d_name);
	closedir(dir);
	return any;
}

static void read_machine(struct machine *machine)
{
	time_t now = time(NULL);
	struct tm utc;

	memset(machine, 0, sizeof(*machine));
	uname(&machine->kernel);
	read_cpu(machine);
	machine->cpus = read_cpus();
	machine->hugepages = read_hugepages();
	gmtime_r(&now, &utc);
	strftime(machine->date, sizeof(machine->date), "%Y-%m-%dT%H:%M:%SZ",
		 &utc);
}

int petal_row_machine_print(struct petal_row_sink *sink)
{
	struct machine machine;
	FILE *out = sink->out;

	read_machine(&machine);
	if (!sink->json) {
		fprintf(out, "%s, %d cpus, Linux %s, hugepages %s, %s, %s\n",
			machine.cpu, machine.cpus, machine.kernel.release,
			machine.hugepages ? "yes" : "no", machine.date,
			PETAL_COMMIT);
		return flush(out);
	}
	fputs("{\"machine\":{\"cpu\":", out);
	print_string(out, machine.cpu);
	print_key_count(out, "cpus", (uint64_t)machine.cpus);
	print_key_string(out, "kernel", machine.kernel.release);
	print_key_bool(out, "hugepages", machine.hugepages);
	print_key_string(out, "date", machine.date);
	print_key_string(out, "commit", PETAL_COMMIT);
	fputs("}}\n", out);
	return flush(out);
}
