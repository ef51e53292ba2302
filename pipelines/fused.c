/* One training view from a decoded crop; `graph.train_graph` is the same with DALI's operators.

       rows of the crop -> resample down  -> a row as wide as the crop (less that of the next frame)
                        -> resample across, colour up to contrast -> a row of the view
       all rows         -> mean grey, which contrast needs
       rows of the view -> contrast, the other colours
                        -> blur across -> the last 2 radius + 1 rows -> blur down
                        -> solarize, normalise -> a row of the output

   All that is done to a row is done while it is in the innermost cache. DALI calls `view_float32` or `view_bfloat16` once
   per picture from its threads; see `fused.py`. */

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* Machine code for several generations of vector units; the best is chosen when the library is loaded. */
#if defined(__x86_64__) && defined(__gnu_linux__) && defined(__GNUC__) && !defined(__clang__) && __GNUC__ >= 12
#define FOR_EACH_CPU __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define FOR_EACH_CPU
#endif
#define INLINE static inline __attribute__((always_inline))

/* Three channels and an unused lane; every row has room for it past its end. */
typedef float pixel __attribute__((vector_size(16), aligned(4)));
/* A colour step, see `views.STEP`. */
typedef struct {
    float own, next, previous, extremes, grey, mean, constant;
} step;
enum { STEPS = 6 };
/* Parameters of a view, in the order of `fused.PARAMETERS`. */
typedef struct {
    step steps[STEPS];
    float scale[3], offset[3]; /* normalised = out * scale + offset */
    float sigma;               /* of the blur in pixels of the view, 0: none */
    float flip;                /* 1: mirrored */
    float fold;                /* levels v above half of it become fold - v: 255 solarizes, 1e30 never applies */
    float difference;          /* 1: the next frame is subtracted */
} view;

/* Sample i of the resampled axis is the sum of weight[i * taps + k] * (sample first[i] + k of the source). */
typedef struct {
    int in, out, taps;
    float *weight;
    int *first;
} axis;

/* Number of source samples under the triangle filter. */
INLINE int taps_of(int in, int out) {
    const int taps = (int)ceilf(2 * fmaxf((float)in / out, 1));
    return taps < in ? taps : in;
}

/* Triangle filter as wide as a pixel of the source or of the output, whichever is wider, cut at the edges. */
INLINE void fill(axis *a) {
    const float step = (float)a->in / a->out, radius = fmaxf(step, 1);
    for (int i = 0; i < a->out; i++) {
        const float centre = (i + 0.5f) * step - 0.5f;
        float *weight = a->weight + i * a->taps, sum = 0;
        int first = (int)floorf(centre - radius) + 1;
        if (first > a->in - a->taps) first = a->in - a->taps;
        if (first < 0) first = 0;
        a->first[i] = first;
        for (int k = 0; k < a->taps; k++) {
            const float height = radius - fabsf(first + k - centre);
            sum += weight[k] = height > 0 ? height : 0;
        }
        sum = 1 / sum;
        for (int k = 0; k < a->taps; k++) weight[k] *= sum;
    }
}

/* Sum of weight[k] * rows[k] for rows of `type`, four rows at a time. */
#define BLEND(name, type)                                                                                               \
    INLINE void name##_some(int count, float *restrict out, const type *const *rows, const float *weight, int length,   \
                            int begun) {                                                                                \
        const type *restrict a = rows[0], *restrict b = rows[count > 1 ? 1 : 0];                                        \
        const type *restrict c = rows[count > 2 ? 2 : 0], *restrict d = rows[count > 3 ? 3 : 0];                        \
        for (ptrdiff_t i = 0; i < length; i++) {                                                                              \
            float sum = (begun ? out[i] : 0) + weight[0] * a[i];                                                        \
            if (count > 1) sum += weight[1] * b[i];                                                                     \
            if (count > 2) sum += weight[2] * c[i];                                                                     \
            if (count > 3) sum += weight[3] * d[i];                                                                     \
            out[i] = sum;                                                                                               \
        }                                                                                                               \
    }                                                                                                                   \
    INLINE void name(float *out, const type *const *rows, const float *weight, int count, int length) {                 \
        for (int k = 0; k < count; k += 4) switch (count - k) { /* known to the compiler */                             \
            case 1: name##_some(1, out, rows + k, weight + k, length, k); break;                                        \
            case 2: name##_some(2, out, rows + k, weight + k, length, k); break;                                        \
            case 3: name##_some(3, out, rows + k, weight + k, length, k); break;                                        \
            default: name##_some(4, out, rows + k, weight + k, length, k);                                              \
            }                                                                                                           \
    }
BLEND(blend_bytes, uint8_t)
BLEND(blend_floats, float)

INLINE void across_by(int taps, float *row, const float *line, const axis *a, int flip) {
    for (int x = 0; x < a->out; x++) {
        const int at = flip ? a->out - 1 - x : x;
        const float *weight = a->weight + at * taps, *from = line + 3 * a->first[at];
        pixel value = weight[0] * *(const pixel *)from;
        for (int k = 1; k < taps; k++) value += weight[k] * *(const pixel *)(from + 3 * k);
        *(pixel *)(row + 3 * x) = value;
    }
}

INLINE void resample_across(float *row, const float *line, const axis *a, int flip) {
    switch (a->taps) { /* known to the compiler for small pictures */
    case 2: across_by(2, row, line, a, flip); break;
    case 3: across_by(3, row, line, a, flip); break;
    case 4: across_by(4, row, line, a, flip); break;
    default: across_by(a->taps, row, line, a, flip);
    }
}

INLINE float lesser(float a, float b) { return a < b ? a : b; }
INLINE float greater(float a, float b) { return a > b ? a : b; }
INLINE float between(float value, float least, float most) { return lesser(greater(value, least), most); }
INLINE float luma(float r, float g, float b) { return 0.299f * r + 0.587f * g + 0.114f * b; } /* ITU-R BT.601 */

/* Rows of `length` numbers, three a pixel. Steps are passed by value, as a pointer might point into the row. Counters are as
   wide as pointers: setuptools builds with -fwrapv, and with counters that may wrap these loops are not vectorised. */

INLINE void scale_row(float *row, int length, step s) {
    for (ptrdiff_t i = 0; i < length; i++) row[i] = between(s.own * row[i] + s.constant, 0, 255);
}

INLINE void mix_row(float *row, int length, step s) {
    for (ptrdiff_t i = 0; i < length; i += 3) {
        const float r = row[i], g = row[i + 1], b = row[i + 2], other = s.grey * luma(r, g, b) + s.constant;
        row[i] = between(s.own * r + other, 0, 255);
        row[i + 1] = between(s.own * g + other, 0, 255);
        row[i + 2] = between(s.own * b + other, 0, 255);
    }
}

INLINE void turn_row(float *row, int length, step s) {
    for (ptrdiff_t i = 0; i < length; i += 3) {
        const float r = row[i], g = row[i + 1], b = row[i + 2];
        const float least = lesser(r, lesser(g, b)), most = greater(r, greater(g, b));
        const float ends = s.extremes * (least + most);
        row[i] = between(s.own * r + s.next * g + s.previous * b + ends, least, most);
        row[i + 1] = between(s.own * g + s.next * b + s.previous * r + ends, least, most);
        row[i + 2] = between(s.own * b + s.next * r + s.previous * g + ends, least, most);
    }
}

/* Steps up to `to`, except those that change nothing. */
INLINE void colour_row(float *row, int length, const step *from, const step *to) {
    for (const step *s = from; s < to; s++) {
        if (s->next != 0 || s->previous != 0) turn_row(row, length, *s);
        else if (s->grey != 0) mix_row(row, length, *s);
        else if (s->own != 1 || s->constant != 0) scale_row(row, length, *s);
    }
}

/* Number i of a row or column, mirrored at the edges without repeating them. */
INLINE int reflect(int i, int size) {
    while (i < 0 || i >= size) i = i < 0 ? -i : 2 * (size - 1) - i;
    return i;
}

INLINE float folded(float value, float fold) {
    return value < fold - value ? value : fold - value;
}

INLINE void store_float32(void *to, int row, const float *values, float fold, const float *scale, const float *offset,
                          int count) {
    float *out = (float *)to + (size_t)row * count;
    for (int i = 0; i < count; i++) out[i] = folded(values[i], fold) * scale[i] + offset[i];
}

/* To the nearest, ties to even. */
INLINE void store_bfloat16(void *to, int row, const float *values, float fold, const float *scale, const float *offset,
                           int count) {
    uint16_t *out = (uint16_t *)to + (size_t)row * count;
    for (int i = 0; i < count; i++) {
        const union { float value; uint32_t bits; } x = {folded(values[i], fold) * scale[i] + offset[i]};
        out[i] = (x.bits + 0x7fff + (x.bits >> 16 & 1)) >> 16;
    }
}

typedef void store_row(void *, int, const float *, float, const float *, const float *, int);

/* Sum of weight[k] * (row first + k) of a crop, minus that of `next` unless it is null; `rows` and `other` are scratch. */
INLINE void blend_crop(float *line, float *other, const void **rows, const uint8_t *crop, const uint8_t *next, int first,
                       const float *weight, int count, int width) {
    for (int k = 0; k < count; k++) rows[k] = crop + (size_t)(first + k) * 3 * width;
    blend_bytes(line, (const uint8_t *const *)rows, weight, count, 3 * width);
    if (!next) return;
    for (int k = 0; k < count; k++) rows[k] = next + (size_t)(first + k) * 3 * width;
    blend_bytes(other, (const uint8_t *const *)rows, weight, count, 3 * width);
    for (int i = 0; i < 3 * width; i++) line[i] -= other[i];
}

INLINE void make_view(void *out, size_t bytes, store_row store, const uint8_t *crop, const uint8_t *next, int height,
                      int width, int size, const view *v) {
    const int radius = v->sigma > 0 ? (int)ceilf(3 * v->sigma) : 0, kept = 2 * radius + 1 < size ? 2 * radius + 1 : size;
    const int length = 3 * size, stride = length + 6 * radius + 1;
    axis down = {.in = height, .out = size, .taps = taps_of(height, size)};
    axis across = {.in = width, .out = size, .taps = taps_of(width, size)};

    enum { DOWN, ACROSS, LINE, PICTURE, SUMS, BLURRED, SCALE, OFFSET, GAUSS, KEPT, FIRST, OTHER, PARTS };
    const size_t counts[PARTS] = {
        (size_t)size * down.taps, (size_t)size * across.taps, 3 * width + 1, (size_t)size * stride, length, length, length,
        length, 2 * radius + 1, radius ? (size_t)kept * length : 0, 2 * size, next ? 3 * width : 0};
    size_t total = 0, start[PARTS];
    for (int i = 0; i < PARTS; i++) start[i] = total, total += counts[i];
    const int most = down.taps > 2 * radius + 1 ? down.taps : 2 * radius + 1; /* rows blended at a time */
    const void **rows = malloc(most * sizeof *rows + total * sizeof(float));
    if (!rows) {
        memset(out, 0xff, bytes); /* out of memory: NaN, at which training stops */
        return;
    }
    float *memory = (float *)(rows + most);
    float *line = memory + start[LINE], *other = memory + start[OTHER], *sums = memory + start[SUMS];
    float *picture = memory + start[PICTURE] + 3 * radius, *blurred = memory + start[BLURRED];
    float *scale = memory + start[SCALE], *offset = memory + start[OFFSET], *gauss = memory + start[GAUSS];
    down.weight = memory + start[DOWN], down.first = (int *)(memory + start[FIRST]);
    across.weight = memory + start[ACROSS], across.first = down.first + size;
    fill(&down), fill(&across);
    for (ptrdiff_t i = 0; i < length; i++) scale[i] = v->scale[i % 3], offset[i] = v->offset[i % 3], sums[i] = 0;
    line[3 * width] = 0; /* the fourth lane has weight 0, but 0 times NaN is NaN */

    step steps[STEPS], *contrast = steps;
    memcpy(steps, v->steps, sizeof steps);
    while (contrast < steps + STEPS && contrast->mean == 0) contrast++;
    for (int y = 0; y < size; y++) {
        float *row = picture + (size_t)y * stride;
        blend_crop(line, other, rows, crop, next, down.first[y], down.weight + y * down.taps, down.taps, width);
        resample_across(row, line, &across, v->flip != 0);
        colour_row(row, length, steps, contrast);
        for (ptrdiff_t i = 0; i < length; i++) sums[i] += row[i];
    }
    if (contrast < steps + STEPS) {
        double grey = 0;
        for (ptrdiff_t i = 0; i < length; i += 3) grey += luma(sums[i], sums[i + 1], sums[i + 2]);
        contrast->constant += contrast->mean * (float)(grey / ((double)size * size));
    }

    float sum = 0;
    for (int k = -radius; k <= radius; k++)
        sum += gauss[k + radius] = radius ? expf(-0.5f * k * k / (v->sigma * v->sigma)) : 1;
    for (int k = 0; k <= 2 * radius; k++) gauss[k] /= sum;

    for (int y = 0, made = 0; y < size; y++) {
        for (; made < size && made <= y + radius; made++) {
            float *row = picture + (size_t)made * stride;
            colour_row(row, length, contrast, steps + STEPS);
            if (!radius) continue;
            for (int x = 1; x <= radius; x++) {
                memcpy(row - 3 * x, row + 3 * reflect(-x, size), 3 * sizeof *row);
                memcpy(row + 3 * (size - 1 + x), row + 3 * reflect(size - 1 + x, size), 3 * sizeof *row);
            }
            for (int k = -radius; k <= radius; k++) rows[k + radius] = row + 3 * k;
            float *smooth = memory + start[KEPT] + (size_t)(made % kept) * length;
            blend_floats(smooth, (const float *const *)rows, gauss, 2 * radius + 1, length);
        }
        for (int k = -radius; radius && k <= radius; k++)
            rows[k + radius] = memory + start[KEPT] + (size_t)(reflect(y + k, size) % kept) * length;
        if (radius) blend_floats(blurred, (const float *const *)rows, gauss, 2 * radius + 1, length);
        store(out, y, radius ? blurred : picture + (size_t)y * stride, v->fold, scale, offset, length);
    }
    free(rows);
}

/* Called by DALI. Inputs: any array of length `size`, the crop [h, w, 3], the numbers of `view`, and for clips the crop
   of the next frame, which is read only if it is subtracted. Output: [size, size, 3]. Arrays and their shapes are
   passed as pointers to each. */

void view_shape(int64_t **out_shape, int32_t *out_dims, int32_t outs, int64_t **in_shape, int32_t *in_dims, int32_t ins,
                int32_t samples) {
    (void)out_dims, (void)outs, (void)in_dims, (void)ins;
    for (int i = 0; i < samples; i++) out_shape[i][0] = out_shape[i][1] = in_shape[i][0], out_shape[i][2] = 3;
}

#define OPERATOR(name, type, store)                                                                                     \
    FOR_EACH_CPU void name(void **out, int64_t **out_shape, int32_t *out_dims, int32_t outs, void **in,                 \
                           int64_t **in_shape, int32_t *in_dims, int32_t ins) {                                         \
        (void)out_dims, (void)outs, (void)in_dims;                                                                      \
        const int size = (int)out_shape[0][0];                                                                          \
        const view *v = in[2];                                                                                          \
        make_view(out[0], (size_t)size * size * 3 * sizeof(type), store, in[1],                                         \
                  ins == 4 && v->difference ? in[3] : NULL, (int)in_shape[1][0], (int)in_shape[1][1], size, v);         \
    }
OPERATOR(view_float32, float, store_float32)
OPERATOR(view_bfloat16, uint16_t, store_bfloat16)
