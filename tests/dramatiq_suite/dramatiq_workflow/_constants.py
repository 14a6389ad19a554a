OPTION_KEY_CALLBACKS = "workflow_completion_callbacks"
