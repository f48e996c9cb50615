/* What TensorRT's Python bindings look for in its three libraries, of which this stands for each.
 *
 * Every factory hands out nothing, as the real ones do on a machine without a usable GPU. So the
 * published bindings can be imported, and what they raise is what users without a GPU see.
 */
#include <stddef.h>

#define HANDS_OUT_NOTHING(name) \
    void *name(void) { return NULL; }

/* libnvinfer */
HANDS_OUT_NOTHING(createInferBuilder_INTERNAL)
HANDS_OUT_NOTHING(createInferRefitter_INTERNAL)
HANDS_OUT_NOTHING(createInferRuntime_INTERNAL)
HANDS_OUT_NOTHING(getBuilderPluginRegistry)
HANDS_OUT_NOTHING(getPluginRegistry)

/* libnvonnxparser */
HANDS_OUT_NOTHING(createNvOnnxParser_INTERNAL)
HANDS_OUT_NOTHING(createNvOnnxParserRefitter_INTERNAL)
int getNvOnnxParserVersion(void) { return 0; }

/* libnvinfer_plugin: whether its plugins are there */
int initLibNvInferPlugins(void) { return 1; }
