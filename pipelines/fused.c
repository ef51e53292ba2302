/* One training view from a decoded crop, in one pass over memory; what `graph.train_graph` does by DALI's operators.

       rows of the crop -> resample down  -> a row as wide as the crop
                        -> resample across, colour, clip -> a row of the view
                        -> blur across -> the last 2 radius + 1 rows -> blur down -> normalise -> a row of the output

   A row is done while it is in the innermost cache. DALI calls `view_float32` or `view_bfloat16` once a picture, from its
   threads; see `fused.py`. */

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* Machine code for the widest vectors there are, chosen when the library is loaded. */
#if defined(__x86_64__) && defined(__gnu_linux__) && defined(__GNUC__) && !defined(__clang__) && __GNUC__ >= 12
#define FOR_EACH_CPU __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define FOR_EACH_CPU
#endif
#define INLINE static inline __attribute__((always_inline))

/* Three channels and a lane that nobody looks at: every row has room for it behind its end. */
typedef float pixel __attribute__((vector_size(16), aligned(4)));
/* Part of a row. */
typedef float wide __attribute__((vector_size(64), aligned(4)));
enum { WIDE = 16 };

/* What a view asks for, in the order of `fused.PARAMETERS`. */
typedef struct {
    float colour[9], mean[9];  /* 3x3: out = colour * pixel + mean * (mean pixel of the resized crop) */
    float scale[3], offset[3]; /* normalised = out * scale + offset */
    float sigma;               /* of the blur in pixels of the view, 0: none */
    float flip;                /* 1: mirrored */
} view;

/* Sample i of the resampled axis is the sum of weight[i * taps + k] * (sample first[i] + k of the source). */
typedef struct {
    int in, out, taps;
    float *weight;
    int *first;
} axis;

/* Samples of the source that the triangle filter can reach at a time. */
INLINE int taps_of(int in, int out) {
    const int taps = (int)ceilf(2 * fmaxf((float)in / out, 1));
    return taps < in ? taps : in;
}

/* Triangle filter, as wide as a pixel of the output where that is the wider one, cut at the edges. */
INLINE void fill(axis *a) {
    const float step = (float)a->in / a->out, radius = fmaxf(step, 1);
    for (int i = 0; i < a->out; i++) {
        const float centre = (i + 0.5f) * step - 0.5f;
        float *weight = a->weight + i * a->taps, sum = 0;
        int first = (int)floorf(centre - radius) + 1;
        if (first > a->in - a->taps) first = a->in - a->taps;
        if (first < 0) first = 0;
        a->first[i] = first;
        for (int k = 0; k < a->taps; k++) sum += weight[k] = fmaxf(1 - fabsf(first + k - centre) / radius, 0);
        for (int k = 0; k < a->taps; k++) weight[k] /= sum;
    }
}

/* What every sample of the source weighs in the mean of the resampled ones. */
INLINE void weigh(float *weight, const axis *a) {
    memset(weight, 0, a->in * sizeof *weight);
    for (int i = 0; i < a->out; i++)
        for (int k = 0; k < a->taps; k++)
            weight[a->first[i] + k] += a->weight[i * a->taps + k] / a->out;
}

INLINE pixel transform(const float *matrix, pixel x) {
    const pixel red = {matrix[0], matrix[3], matrix[6]}, green = {matrix[1], matrix[4], matrix[7]};
    const pixel blue = {matrix[2], matrix[5], matrix[8]};
    return red * x[0] + green * x[1] + blue * x[2];
}

/* Add weight[k] * (row k) of `count` rows of `length` bytes that follow each other to `out`, which starts at 0. */
INLINE void add_bytes(int count, float *restrict out, const uint8_t *restrict rows, int length, const float *weight,
                      int begun) {
    for (int i = 0; i < length; i++) {
        float sum = begun ? out[i] : 0;
        for (int k = 0; k < count; k++) sum += weight[k] * rows[k * length + i];
        out[i] = sum;
    }
}

INLINE void blend_bytes(float *out, const uint8_t *rows, int length, const float *weight, int count) {
    for (int k = 0; k < count; k += 4, rows += 4 * length, weight += 4) {
        switch (count - k) { /* known to the compiler */
        case 1: add_bytes(1, out, rows, length, weight, k); break;
        case 2: add_bytes(2, out, rows, length, weight, k); break;
        case 3: add_bytes(3, out, rows, length, weight, k); break;
        default: add_bytes(4, out, rows, length, weight, k);
        }
    }
}

/* Sum of weight[k] * rows[k], whose length is a multiple of 3 WIDE. */
INLINE void blend_rows(float *out, const float *const *rows, int length, const float *weight, int count) {
    for (int i = 0; i < length; i += 3 * WIDE) {
        wide left = {0}, middle = {0}, right = {0};
        for (int k = 0; k < count; k++) {
            const wide *from = (const wide *)(rows[k] + i);
            left += weight[k] * from[0], middle += weight[k] * from[1], right += weight[k] * from[2];
        }
        wide *to = (wide *)(out + i);
        to[0] = left, to[1] = middle, to[2] = right;
    }
}

INLINE void across_by(int taps, float *row, const float *line, const axis *a, const view *v, pixel grey) {
    for (int x = 0; x < a->out; x++) {
        const int at = v->flip != 0 ? a->out - 1 - x : x;
        const float *weight = a->weight + at * taps, *from = line + 3 * a->first[at];
        pixel value = weight[0] * *(const pixel *)from;
        for (int k = 1; k < taps; k++) value += weight[k] * *(const pixel *)(from + 3 * k);
        *(pixel *)(row + 3 * x) = transform(v->colour, value) + grey;
    }
    for (int i = 0; i < 3 * a->out; i++) row[i] = row[i] < 0 ? 0 : row[i] > 255 ? 255 : row[i];
}

INLINE void resample_across(float *row, const float *line, const axis *a, const view *v, pixel grey) {
    switch (a->taps) { /* known to the compiler for small pictures */
    case 2: across_by(2, row, line, a, v, grey); break;
    case 3: across_by(3, row, line, a, v, grey); break;
    case 4: across_by(4, row, line, a, v, grey); break;
    default: across_by(a->taps, row, line, a, v, grey);
    }
}

/* Number i of a row or column, mirrored at the edges without repeating them. */
INLINE int reflect(int i, int size) {
    while (i < 0 || i >= size) i = i < 0 ? -i : 2 * (size - 1) - i;
    return i;
}

INLINE void store_float32(void *to, int row, const float *values, const float *scale, const float *offset, int count) {
    float *out = (float *)to + (size_t)row * count;
    for (int i = 0; i < count; i++) out[i] = values[i] * scale[i] + offset[i];
}

/* To the nearest, ties to even. */
INLINE void store_bfloat16(void *to, int row, const float *values, const float *scale, const float *offset, int count) {
    uint16_t *out = (uint16_t *)to + (size_t)row * count;
    for (int i = 0; i < count; i++) {
        const union { float value; uint32_t bits; } x = {values[i] * scale[i] + offset[i]};
        out[i] = (x.bits + 0x7fff + (x.bits >> 16 & 1)) >> 16;
    }
}

typedef void store_row(void *, int, const float *, const float *, const float *, int);

INLINE void make_view(void *out, size_t bytes, store_row store, const uint8_t *crop, int height, int width, int size,
                      const view *v) {
    const int radius = v->sigma > 0 ? (int)ceilf(3 * v->sigma) : 0, kept = 2 * radius + 1 < size ? 2 * radius + 1 : size;
    const int length = 3 * size, padded = (length + 3 * WIDE - 1) / (3 * WIDE) * (3 * WIDE);
    axis down = {.in = height, .out = size, .taps = taps_of(height, size)};
    axis across = {.in = width, .out = size, .taps = taps_of(width, size)};

    enum { DOWN, ACROSS, MEAN_DOWN, MEAN_ACROSS, LINE, ROW, BLURRED, SCALE, OFFSET, GAUSS, KEPT, FIRST, PARTS };
    const size_t counts[PARTS] = {
        (size_t)size * down.taps, (size_t)size * across.taps, height, width, 3 * width + 1, padded + 6 * radius + 1,
        padded, length, length, 2 * radius + 1, radius ? (size_t)kept * padded : 0, 2 * size};
    size_t total = 0, start[PARTS];
    for (int i = 0; i < PARTS; i++) start[i] = total, total += counts[i];
    const float **rows = malloc((2 * radius + 1) * sizeof *rows + total * sizeof(float));
    if (!rows) {
        memset(out, 0xff, bytes); /* no memory: not a number, which training stops at */
        return;
    }
    float *memory = (float *)(rows + 2 * radius + 1);
    float *line = memory + start[LINE], *row = memory + start[ROW] + 3 * radius, *blurred = memory + start[BLURRED];
    float *scale = memory + start[SCALE], *offset = memory + start[OFFSET], *gauss = memory + start[GAUSS];
    down.weight = memory + start[DOWN], down.first = (int *)(memory + start[FIRST]);
    across.weight = memory + start[ACROSS], across.first = down.first + size;
    fill(&down), fill(&across);
    for (int i = 0; i < length; i++) scale[i] = v->scale[i % 3], offset[i] = v->offset[i % 3];

    /* The mean of the resized crop, without resizing it. */
    float *mean_down = memory + start[MEAN_DOWN], *mean_across = memory + start[MEAN_ACROSS];
    pixel mean = {0};
    weigh(mean_down, &down), weigh(mean_across, &across);
    blend_bytes(line, crop, 3 * width, mean_down, height);
    for (int x = 0; x < width; x++) mean += mean_across[x] * *(const pixel *)(line + 3 * x);
    const pixel grey = transform(v->mean, mean);

    float sum = 0;
    for (int k = -radius; k <= radius; k++)
        sum += gauss[k + radius] = radius ? expf(-0.5f * k * k / (v->sigma * v->sigma)) : 1;
    for (int k = 0; k <= 2 * radius; k++) gauss[k] /= sum;

    for (int y = 0, made = 0; y < size; y++) {
        for (; made < size && made <= y + radius; made++) {
            const uint8_t *from = crop + (size_t)down.first[made] * 3 * width;
            blend_bytes(line, from, 3 * width, down.weight + made * down.taps, down.taps);
            resample_across(row, line, &across, v, grey);
            if (!radius) continue;
            for (int x = 1; x <= radius; x++) {
                memcpy(row - 3 * x, row + 3 * reflect(-x, size), 3 * sizeof *row);
                memcpy(row + 3 * (size - 1 + x), row + 3 * reflect(size - 1 + x, size), 3 * sizeof *row);
            }
            for (int k = -radius; k <= radius; k++) rows[k + radius] = row + 3 * k;
            blend_rows(memory + start[KEPT] + (size_t)(made % kept) * padded, rows, padded, gauss, 2 * radius + 1);
        }
        for (int k = -radius; radius && k <= radius; k++)
            rows[k + radius] = memory + start[KEPT] + (size_t)(reflect(y + k, size) % kept) * padded;
        if (radius) blend_rows(blurred, rows, padded, gauss, 2 * radius + 1);
        store(out, y, radius ? blurred : row, scale, offset, length);
    }
    free(rows);
}

/* DALI's calls: the inputs are any array as long as the view is wide, the crop [h, w, 3], and the numbers of `view`; the
   output is [size, size, 3]. Arrays come as pointers to each, and so do their shapes. */

void view_shape(int64_t **out_shape, int32_t *out_dims, int32_t outs, int64_t **in_shape, int32_t *in_dims, int32_t ins,
                int32_t samples) {
    (void)out_dims, (void)outs, (void)in_dims, (void)ins;
    for (int i = 0; i < samples; i++) out_shape[i][0] = out_shape[i][1] = in_shape[i][0], out_shape[i][2] = 3;
}

#define OPERATOR(name, type, store)                                                                                     \
    FOR_EACH_CPU void name(void **out, int64_t **out_shape, int32_t *out_dims, int32_t outs, void **in,                 \
                           int64_t **in_shape, int32_t *in_dims, int32_t ins) {                                         \
        (void)out_dims, (void)outs, (void)in_dims, (void)ins;                                                           \
        const int size = (int)out_shape[0][0];                                                                          \
        make_view(out[0], (size_t)size * size * 3 * sizeof(type), store, in[1], (int)in_shape[1][0],                    \
                  (int)in_shape[1][1], size, in[2]);                                                                    \
    }
OPERATOR(view_float32, float, store_float32)
OPERATOR(view_bfloat16, uint16_t, store_bfloat16)
